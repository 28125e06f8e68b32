//! Who we are to a registry: the command line, then podman's files, then docker's.

use std::env;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};
use docker_credential::{CredentialRetrievalError, DockerCredential};

use super::Repository;
use crate::flags::RegistryOptions;

/// Who we are, and how we know. Shown without its secret.
#[derive(Clone)]
pub struct Credential {
    pub secret: Secret,
    source: String,
}

/// What proves who we are.
#[derive(Clone)]
pub enum Secret {
    /// A name and its password.
    Password { user: String, password: String },
    /// What a token server once gave for them.
    IdentityToken(String),
}

impl fmt::Display for Credential {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.secret {
            Secret::Password { user, .. } => write!(out, "user `{user}` ({})", self.source),
            Secret::IdentityToken(_) => write!(out, "the identity token ({})", self.source),
        }
    }
}

/// The password on stdin, which can be read once, for however many connections.
static PASSWORD: OnceLock<String> = OnceLock::new();

/// What the command line says, with the password from stdin.
pub fn given(options: &RegistryOptions) -> Result<Option<Credential>> {
    let Some(user) = options.username.clone() else { return Ok(None) };
    let password = match PASSWORD.get() {
        Some(known) => known.clone(),
        None => read_password(&user)?,
    };
    let source = "from --username".to_string();
    Ok(Some(Credential { secret: Secret::Password { user, password }, source }))
}

fn read_password(user: &str) -> Result<String> {
    let mut password = String::new();
    std::io::stdin()
        .read_to_string(&mut password)
        .context("cannot read the password from stdin")?;
    let password = password.trim_end_matches(['\r', '\n']);
    ensure!(!password.is_empty(), "cannot log in as `{user}`: stdin holds no password");
    Ok(PASSWORD.get_or_init(|| password.to_string()).clone())
}

/// What the first of podman's and docker's files says that knows the registry.
pub fn find(repository: &Repository) -> Result<Option<Credential>> {
    let variable = |name: &str| env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let files = files(variable, nix::unistd::getuid().as_raw());
    // Nor is one there that lies where we may not even look.
    for path in files.into_iter().filter(|it| it.exists()) {
        let text = fs::read_to_string(&path).with_context(|| unreadable(&path))?;
        if let Some(secret) = read(&text, repository).with_context(|| unreadable(&path))? {
            return Ok(Some(Credential { secret, source: format!("from {}", path.display()) }));
        }
    }
    Ok(None)
}

fn unreadable(path: &Path) -> String {
    format!("cannot read the login in `{}`", path.display())
}

/// Where logins are kept, podman's (containers-auth.json(5)) before docker's.
fn files(variable: impl Fn(&str) -> Option<PathBuf>, user: u32) -> Vec<PathBuf> {
    let in_home = |name: &str| variable("HOME").map(|it| it.join(name));
    let podman = || {
        let running = variable("XDG_RUNTIME_DIR").map(|it| it.join("containers"));
        let running = running.unwrap_or_else(|| format!("/run/containers/{user}").into());
        let lasting = variable("XDG_CONFIG_HOME").or_else(|| in_home(".config"));
        let folders = [Some(running), lasting.map(|it| it.join("containers"))];
        folders.into_iter().flatten().map(|it| it.join("auth.json")).collect()
    };
    // Whoever names a file of podman's means that one and no other.
    let mut files = variable("REGISTRY_AUTH_FILE").map_or_else(podman, |it| vec![it]);
    let docker = variable("DOCKER_CONFIG").or_else(|| in_home(".docker"));
    files.extend(docker.map(|it| it.join("config.json")));
    files
}

/// What the file `text` knows about `repository`.
fn read(text: &str, repository: &Repository) -> Result<Option<Secret>> {
    let file: serde_json::Value = serde_json::from_str(text).context("it is no JSON")?;
    let names =
        |key: &str| ["auths", "credHelpers"].iter().any(|table| file[*table].get(key).is_some());
    let keys = keys(repository);
    // The last key is asked for in any case: docker's store of all logins goes by it.
    let narrow = keys.iter().find(|key| names(key)).or(keys.last());
    let key = narrow.expect("a registry has one key at least");
    match docker_credential::get_credential_from_reader(text.as_bytes(), key) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(Secret::Password { user, password }))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Secret::IdentityToken(token))),
        Err(err) => none_or_why(err),
    }
}

fn none_or_why(err: CredentialRetrievalError) -> Result<Option<Secret>> {
    match err {
        CredentialRetrievalError::NoCredentialConfigured => Ok(None),
        // What it printed may be a secret, and is not shown.
        CredentialRetrievalError::HelperFailure { stdout, helper, .. } => {
            let knows_nothing = stdout.contains("credentials not found");
            if knows_nothing { Ok(None) } else { bail!("the helper `{helper}` failed") }
        }
        CredentialRetrievalError::HelperCommunicationError => {
            bail!("its credential helper does not run; is it installed?")
        }
        other => Err(anyhow!("{}", other.to_string().to_lowercase())),
    }
}

/// The names a file may know `repository` by, the narrowest first: podman can keep one login for
/// each namespace.
fn keys(repository: &Repository) -> Vec<String> {
    let mut key = repository.to_string();
    let mut keys = vec![key.clone()];
    while let Some(end) = key.rfind('/') {
        key.truncate(end);
        keys.push(key.clone());
    }
    if repository.registry == "docker.io" {
        keys.push("https://index.docker.io/v1/".to_string());
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bob:hunter2` and `eve:secret`, as the files have them.
    const BOB: &str = "Ym9iOmh1bnRlcjI=";
    const EVE: &str = "ZXZlOnNlY3JldA==";

    #[track_caller]
    fn check(text: &str, repository: &str, expected: Option<&str>) {
        let repository = Repository::parse(repository).unwrap();
        let found = read(text, &repository).unwrap().map(|secret| match secret {
            Secret::Password { user, password } => format!("{user}:{password}"),
            Secret::IdentityToken(token) => token,
        });
        assert_eq!(found.as_deref(), expected);
    }

    #[track_caller]
    fn looks_at(variables: &[(&str, &str)], expected: &[&str]) {
        let find = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.into());
        assert_eq!(files(find, 7), expected.iter().map(PathBuf::from).collect::<Vec<_>>());
    }

    #[test]
    fn logins_are_looked_for_where_podman_and_docker_keep_them() {
        looks_at(&[], &["/run/containers/7/auth.json"]);
        looks_at(
            &[("HOME", "/h")],
            &[
                "/run/containers/7/auth.json",
                "/h/.config/containers/auth.json",
                "/h/.docker/config.json",
            ],
        );
        let moved = [("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r"), ("XDG_CONFIG_HOME", "/c")];
        let [podman, lasting] = ["/r/containers/auth.json", "/c/containers/auth.json"];
        looks_at(&moved, &[podman, lasting, "/h/.docker/config.json"]);
        let named = [("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/a"), ("DOCKER_CONFIG", "/d")];
        looks_at(&named, &["/a", "/d/config.json"]);
    }

    #[test]
    fn a_registry_s_login_is_found() {
        let text = format!(r#"{{"auths":{{"127.0.0.1:5000":{{"auth":"{BOB}"}}}}}}"#);
        check(&text, "127.0.0.1:5000/a/b", Some("bob:hunter2"));
        check(&text, "127.0.0.1:5001/a/b", None);
    }

    #[test]
    fn the_narrowest_namespace_wins() {
        let text =
            format!(r#"{{"auths":{{"r.io":{{"auth":"{BOB}"}},"r.io/a":{{"auth":"{EVE}"}}}}}}"#);
        check(&text, "r.io/a/b", Some("eve:secret"));
        check(&text, "r.io/c/b", Some("bob:hunter2"));
    }

    #[test]
    fn the_hub_goes_by_its_old_address_too() {
        let old = format!(r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{BOB}"}}}}}}"#);
        check(&old, "docker.io/me/pid1", Some("bob:hunter2"));
        let new = format!(r#"{{"auths":{{"docker.io":{{"auth":"{BOB}"}}}}}}"#);
        check(&new, "docker.io/me/pid1", Some("bob:hunter2"));
    }

    #[test]
    fn an_identity_token_is_found() {
        check(r#"{"auths":{"r.io":{"identitytoken":"t"}}}"#, "r.io/a", Some("t"));
    }

    #[test]
    fn an_empty_file_knows_nobody() {
        check("{}", "r.io/a", None);
    }

    #[test]
    fn a_credential_is_shown_without_its_secret() {
        let secret = Secret::Password { user: "bob".to_string(), password: "hunter2".to_string() };
        let credential = Credential { secret, source: "from /f".to_string() };
        assert_eq!(credential.to_string(), "user `bob` (from /f)");
    }
}
