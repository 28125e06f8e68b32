//! One repository of one registry: how it is reached, and who we are there.

mod body;
mod challenge;
mod credentials;
mod failure;
mod pull;
mod push;
mod reference;
mod referrers;
pub mod work;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Certificate, Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode};

use crate::flags::{RegistryOptions, Transport};
use crate::ui::Ui;

use challenge::Challenge;
use credentials::{Credential, Secret};
use failure::Failure;
pub use push::{Arrival, Blob, Document};
pub use reference::{Mirror, Reference, mirrored};
pub use referrers::Artifact;
pub use reqwest::Url;

/// How often a request is made before its failure is final.
const TRIES: u32 = 4;

/// The wait before the second try; it doubles with each further one.
const BACKOFF: Duration = Duration::from_millis(200);

/// The longest that a registry's `Retry-After` is obeyed.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// How many redirects are followed, one after the other.
const REDIRECTS: usize = 5;

/// How long a credential helper may take: it may ask somebody for a password.
const HELPER_LIMIT: Duration = Duration::from_mins(1);

/// A repository, as `REGISTRY/NAME` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Host and port.
    pub registry: String,
    /// The name there.
    pub name: String,
}

impl Repository {
    /// Whether it can only be on this machine.
    pub fn is_on_this_machine(&self) -> bool {
        base(self, "https").is_ok_and(|url| is_loopback(&url))
    }

    /// Reads `REGISTRY/NAME`, which has neither tag nor digest.
    pub fn parse(written: &str) -> Result<Repository> {
        let fault = |fault: &str| {
            anyhow!("cannot use the repository `{written}`: {fault}, such as 127.0.0.1:5000/pid1")
        };
        ensure!(!written.contains("://"), fault("it is written without a scheme"));
        let (registry, name) = written.split_once('/').unwrap_or(("", written));
        ensure!(!name.contains('@'), fault("it is written without a digest"));
        ensure!(!name.contains(':'), fault("it is written without a tag"));
        ensure!(is_name(name), fault("it should be a registry and a name in lower case"));
        let is_host = registry.contains(['.', ':']) || registry == "localhost";
        ensure!(is_host && registry.chars().all(is_of_host), fault("it names no registry"));
        Ok(Repository { registry: registry.to_string(), name: name.to_string() })
    }

    /// Where the project's images are published: GitHub's registry, under the name of the source.
    pub fn published() -> Result<Repository> {
        let source = env!("CARGO_PKG_REPOSITORY").to_lowercase();
        let name = source.trim_start_matches("https://github.com/");
        Repository::parse(&format!("ghcr.io/{name}"))
    }

    /// The host that speaks for the registry.
    fn host(&self) -> &str {
        // The hub's name is not the name of its server.
        if self.registry == "docker.io" { "registry-1.docker.io" } else { &self.registry }
    }
}

impl std::fmt::Display for Repository {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.registry, self.name)
    }
}

/// Whether the distribution specification allows the name. Its regular expression would say so
/// too, and take longer to compile than a push that changes nothing takes in all.
fn is_name(name: &str) -> bool {
    let is_plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
    let is_separator = |it: &str| matches!(it, "." | "_" | "__") || it.chars().all(|it| it == '-');
    name.len() <= 255
        && name.split('/').all(|part| {
            part.starts_with(is_plain)
                && part.ends_with(is_plain)
                && part.split(is_plain).all(is_separator)
        })
}

fn is_of_host(char: char) -> bool {
    char.is_ascii_alphanumeric() || "-.:[]".contains(char)
}

/// Who we say we are, once the registry has asked.
#[derive(Clone)]
enum Authorization {
    Basic(String, String),
    Bearer(String),
}

/// What we are there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Pull,
    Push,
}

impl Access {
    /// What a token is to allow.
    fn actions(self) -> &'static str {
        match self {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        }
    }

    /// As a sentence says it.
    fn verb(self) -> &'static str {
        match self {
            Access::Pull => "pull from",
            Access::Push => "push to",
        }
    }
}

/// A repository that answers.
pub struct Registry {
    ui: Ui,
    client: Client,
    base: Url,
    repository: Repository,
    access: Access,
    timeout: Duration,
    plain_http: bool,
    /// The name of another repository here that blobs may be taken from.
    mount_from: Option<String>,
    credential: OnceLock<Option<Credential>>,
    authorization: Mutex<Option<Authorization>>,
    /// Set by the first answer: from then on, a registry that is gone may come back.
    reached: AtomicBool,
}

impl Registry {
    /// Reads what `options` point to, in order to push: nothing is sent yet.
    pub fn new(ui: &Ui, repository: Repository, options: &RegistryOptions) -> Result<Registry> {
        let registry = Registry::open(ui, repository, Access::Push, &options.transport)?;
        if let Some(given) = credentials::given(options)? {
            let _ = registry.credential.set(Some(given));
        }
        Ok(registry)
    }

    /// The same in order to pull, as nobody in particular.
    pub fn to_pull(ui: &Ui, repository: Repository, transport: &Transport) -> Result<Registry> {
        Registry::open(ui, repository, Access::Pull, transport)
    }

    fn open(
        ui: &Ui,
        repository: Repository,
        access: Access,
        transport: &Transport,
    ) -> Result<Registry> {
        // A provider that is installed already does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = base(&repository, if transport.plain_http { "http" } else { "https" })?;
        Ok(Registry {
            ui: ui.clone(),
            client: client(&base, transport)?,
            base,
            repository,
            access,
            timeout: transport.timeout,
            plain_http: transport.plain_http,
            mount_from: None,
            credential: OnceLock::new(),
            authorization: Mutex::default(),
            reached: AtomicBool::new(false),
        })
    }

    /// The same, taking blobs from the repository `written` where that has them.
    pub fn mounting_from(mut self, written: &str) -> Result<Registry> {
        let from = Repository::parse(written)?;
        ensure!(
            from.registry == self.repository.registry,
            "cannot mount blobs from `{from}`: it is in another registry than `{}`",
            self.repository
        );
        self.mount_from = Some(from.name);
        Ok(self)
    }

    /// Asks the registry whether it is one, and who we should be.
    pub async fn connect(mut self, transport: &Transport) -> Result<Registry> {
        let step = format!("cannot reach the registry `{}`", self.repository.registry);
        // A registry on this machine seldom has a certificate; with `--ca` it says that it has.
        if is_loopback(&self.base)
            && !transport.plain_http
            && transport.ca.is_none()
            && let Err(Failure::NotTls | Failure::Dropped(_)) = self.ping().await
        {
            self.base = base(&self.repository, "http")?;
        }
        self.persist(&step, || self.ping()).await?;
        self.reached.store(true, Ordering::Relaxed);
        Ok(self)
    }

    async fn ping(&self) -> Result<(), Failure> {
        let url = self.base.join("/v2/").expect("a fixed path");
        let response = self.once(Method::GET, &url, |it| it).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.accept(response).await.map(drop);
        }
        self.authorise(&response).await?;
        let authorization = self.authorization.lock().expect("no holder panics").clone();
        if let Some(Authorization::Bearer(_)) = authorization {
            // The token is for our repository; what `/v2/` says of it differs from one to the next.
            return Ok(());
        }
        self.accept(self.once(Method::GET, &url, |it| it).await?).await.map(drop)
    }

    /// The address of `path` in this repository.
    fn url(&self, path: &str) -> Url {
        let path = format!("/v2/{}/{path}", self.repository.name);
        self.base.join(&path).expect("a repository's name is checked and needs no escape")
    }

    /// Makes `attempt` until it succeeds, or its failure is one that will stay.
    async fn persist<T, F>(&self, step: &str, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        for tried in 1.. {
            let failure = match attempt().await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let passing = match failure {
                Failure::Unreachable(_) => self.reached.load(Ordering::Relaxed),
                _ => failure.is_passing(),
            };
            if !passing {
                bail!("{step}: {failure}");
            }
            if tried == TRIES {
                bail!("{step}: {failure}; tried {tried} times");
            }
            let asked = failure.retry_after().unwrap_or_default().min(LONGEST_WAIT);
            let wait = asked.max(BACKOFF * 2_u32.pow(tried - 1));
            self.ui.say(format!("{step}: {failure}; trying again in {} ms", wait.as_millis()));
            tokio::time::sleep(wait).await;
        }
        unreachable!("the loop ends by returning")
    }

    /// Sends a request, and once more as somebody if the registry asks who we are.
    async fn send(
        &self,
        method: Method,
        url: &Url,
        dress: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let response = self.once(method.clone(), url, &dress).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        self.authorise(&response).await?;
        self.once(method, url, &dress).await
    }

    async fn once(
        &self,
        method: Method,
        url: &Url,
        dress: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let request = dress(self.request(method, url)).timeout(self.timeout);
        request.send().await.map_err(|err| Failure::of(&err, self.timeout))
    }

    /// A request that says who we are, if it goes to the registry itself: an upload may be sent
    /// elsewhere, and whoever is there must not learn our password.
    fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        let request = self.client.request(method, url.clone());
        if url.origin() != self.base.origin() {
            return request;
        }
        match &*self.authorization.lock().expect("no holder panics") {
            Some(Authorization::Basic(user, password)) => request.basic_auth(user, Some(password)),
            Some(Authorization::Bearer(token)) => request.bearer_auth(token),
            None => request,
        }
    }

    /// The response, if it is a success.
    async fn accept(&self, response: Response) -> Result<Response, Failure> {
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(self.elsewhere(response.url()).unwrap_or_else(|| self.denied()))
            }
            _ => Err(Failure::answer(response, self.timeout).await),
        }
    }

    /// Answers a challenge, if it is the registry's own.
    async fn authorise(&self, response: &Response) -> Result<(), Failure> {
        if let Some(failure) = self.elsewhere(response.url()) {
            return Err(failure);
        }
        let credential = self.credential().await?;
        let authorization = match challenge::best(response.headers()) {
            Some(Challenge::Bearer { realm, service }) => Authorization::Bearer(
                self.token(&realm, service.as_deref(), credential.as_ref()).await?,
            ),
            Some(Challenge::Basic) => match credential.map(|it| it.secret) {
                Some(Secret::Password { user, password }) => Authorization::Basic(user, password),
                _ => return Err(self.denied()),
            },
            None => return Err(self.denied()),
        };
        *self.authorization.lock().expect("no holder panics") = Some(authorization);
        Ok(())
    }

    /// Asks `realm` for a token.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        credential: Option<&Credential>,
    ) -> Result<String, Failure> {
        let mut url = Url::parse(realm)
            .map_err(|_| Failure::Other(format!("it sends us to `{realm}` for a token")))?;
        if !self.may_hear_secrets(&url) {
            return Err(Failure::Other(format!(
                "it sends us to `{url}` for a token, where everybody could read the password; \
                 `--plain-http` allows it"
            )));
        }
        let own = format!("repository:{}:{}", self.repository.name, self.access.actions());
        let mount = self.mount_from.as_ref().map(|from| format!("repository:{from}:pull"));
        let scopes: Vec<_> = [own].into_iter().chain(mount).collect();
        let joined = scopes.join(" ");
        let service = service.map(|service| ("service", service));
        let request = match credential.map(|it| &it.secret) {
            Some(Secret::IdentityToken(token)) => {
                let mut fields = vec![("scope", joined.as_str())];
                fields.extend(service);
                fields.extend([("grant_type", "refresh_token"), ("refresh_token", token)]);
                fields.push(("client_id", "pid1-xtask"));
                self.client
                    .post(url)
                    .body(form(&fields))
                    .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            }
            secret => {
                // Here it is one field a scope, there it is one field with all of them.
                let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
                url.query_pairs_mut().extend_pairs(scopes.chain(service));
                let request = self.client.get(url);
                match secret {
                    Some(Secret::Password { user, password }) => {
                        request.basic_auth(user, Some(password))
                    }
                    _ => request,
                }
            }
        };
        let response = request.timeout(self.timeout).send().await;
        let response = response.map_err(|err| Failure::of(&err, self.timeout))?;
        let response = match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.denied()),
            _ => self.accept(response).await?,
        };
        let bytes = body::whole(response, self.timeout).await?;
        challenge::token(&bytes)
            .ok_or_else(|| Failure::Other("its token server sends no token".to_string()))
    }

    /// Whether a password may be sent to `url`.
    fn may_hear_secrets(&self, url: &Url) -> bool {
        url.scheme() == "https" || is_loopback(url) || self.plain_http
    }

    /// Who we can be here. Looked up when the registry first asks: a helper may ask in turn.
    async fn credential(&self) -> Result<Option<Credential>, Failure> {
        if let Some(known) = self.credential.get() {
            return Ok(known.clone());
        }
        let repository = self.repository.clone();
        let search = tokio::task::spawn_blocking(move || credentials::find(&repository));
        let found = match tokio::time::timeout(HELPER_LIMIT, search).await {
            Ok(found) => found.expect("the search does not panic"),
            Err(_) => Err(anyhow!("a credential helper takes too long")),
        };
        let found = found.map_err(|err| Failure::Other(format!("{err:#}")))?;
        Ok(self.credential.get_or_init(|| found).clone())
    }

    /// That `url`, where the registry sent us to, wants to know who we are: whoever is there must
    /// not learn that. Without its query, which may itself be a secret.
    fn elsewhere(&self, url: &Url) -> Option<Failure> {
        let is_its = url.origin() == self.base.origin();
        let mut place = url.clone();
        place.set_query(None);
        (!is_its)
            .then(|| Failure::Other(format!("it sends us to `{place}`, which does not let us")))
    }

    /// Why it does not let us, and what to do.
    fn denied(&self) -> Failure {
        let Repository { registry, name } = &self.repository;
        let verb = self.access.verb();
        let known = self.credential.get().and_then(Option::as_ref);
        let authorization = self.authorization.lock().expect("no holder panics").clone();
        Failure::Other(match (known, authorization) {
            (None, _) => {
                // Only commands that push have these options.
                let or = match self.access {
                    Access::Push => ", or give `--username NAME --password-stdin`",
                    Access::Pull => "",
                };
                format!(
                    "it wants a login, and no login for `{registry}` is known; run `docker login \
                     {registry}`{or}"
                )
            }
            (Some(credential), Some(Authorization::Bearer(_))) => {
                format!("it does not let {credential} {verb} `{name}`")
            }
            (Some(credential), _) => {
                format!("it refuses {credential}: wrong password, or no right to {verb} `{name}`")
            }
        })
    }
}

/// Whether `url` can only mean this machine.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|it| it.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|it| it.is_loopback())
}

fn base(repository: &Repository, scheme: &str) -> Result<Url> {
    Url::parse(&format!("{scheme}://{}/", repository.host()))
        .with_context(|| format!("cannot use the registry `{}`", repository.registry))
}

/// A client for `base` and whoever that sends it to.
fn client(base: &Url, transport: &Transport) -> Result<Client> {
    let authority = transport.ca.as_deref().map_or(Ok(Vec::new()), |path| {
        let pem = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
        ensure!(!found.is_empty(), "cannot use `{}`: it holds no PEM certificate", path.display());
        Ok(found)
    })?;
    let builder = || -> ClientBuilder {
        let builder = Client::builder()
            .user_agent(concat!("pid1-xtask/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(transport.timeout.min(CONNECT_LIMIT))
            .redirect(Policy::custom(redirect))
            .referer(false);
        // A proxy would see in the clear what is only to go round this machine.
        if is_loopback(base) { builder.no_proxy() } else { builder }
    };
    builder()
        .tls_certs_merge(authority.clone())
        .build()
        // A machine without certificates of its own is no reason to refuse: we carry Mozilla's.
        .or_else(|_| builder().tls_certs_only(authority.into_iter().chain(bundled())).build())
        .context("cannot set up TLS")
}

/// Follows a registry to its store, a few steps, and never out of TLS.
fn redirect(attempt: Attempt) -> Action {
    let leaves_tls = attempt.url().scheme() != "https"
        && attempt.previous().iter().any(|url| url.scheme() == "https");
    match attempt.previous().len() {
        _ if leaves_tls => attempt.error("it redirects from https to plain http"),
        REDIRECTS.. => attempt.error("it redirects without end"),
        _ => attempt.follow(),
    }
}

fn bundled() -> Vec<Certificate> {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    roots.filter_map(|root| Certificate::from_der(root).ok()).collect()
}

/// `fields` as a form that is posted.
fn form(fields: &[(&str, &str)]) -> String {
    let mut url = Url::parse("form://").expect("a fixed address");
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refuses(written: &str, fault: &str) {
        let error = Repository::parse(written).unwrap_err().to_string();
        let expected =
            format!("cannot use the repository `{written}`: {fault}, such as 127.0.0.1:5000/pid1");
        assert_eq!(error, expected);
    }

    #[test]
    fn a_repository_is_a_registry_and_a_name() {
        for written in ["127.0.0.1:5000/pid1", "localhost/a/b", "ghcr.io/me/pid1", "docker.io/a/b"]
        {
            assert_eq!(Repository::parse(written).unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_is_no_repository_is_refused_with_the_reason() {
        refuses("", "it should be a registry and a name in lower case");
        refuses("127.0.0.1:5000/PID1", "it should be a registry and a name in lower case");
        for name in ["-a", "a-", "a..b", "a___b", "a._b", "a//b", "a/", "", "a b", "ü"] {
            let written = format!("r.io/{name}");
            refuses(&written, "it should be a registry and a name in lower case");
        }
        refuses("me@r.io/pid1", "it names no registry");
        refuses("127.0.0.1:5000/pid1:latest", "it is written without a tag");
        refuses("127.0.0.1:5000", "it is written without a tag");
        refuses("127.0.0.1:5000/pid1@sha256:00", "it is written without a digest");
        refuses("http://127.0.0.1:5000/pid1", "it is written without a scheme");
        refuses("pid1", "it names no registry");
        refuses("me/pid1", "it names no registry");
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (url, expected) in [
            ("http://127.0.0.1:5000", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:5000", true),
            ("http://localhost", true),
            ("http://localhost.example", false),
            ("http://127.0.0.1.example", false),
            ("http://10.0.0.1", false),
            ("http://0.0.0.0", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
