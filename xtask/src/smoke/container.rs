//! What runs in an image when somebody says `docker run`: the image's configuration and the user's
//! wishes, merged by Docker's rules.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

/// The variable that Docker sets where an image does not.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// When to send a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cue {
    /// When this has been printed.
    Printed(String),
    /// When PID 1 runs the program it is for.
    Runs,
    /// When PID 1 has started a process.
    HasChild,
}

/// What is done to a container from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// `docker kill --signal`
    Signal(i32),
    /// `docker stop`, which only an engine has.
    Stop,
    /// The same when this, run by `docker exec`, has said that it is ready.
    StopBeside(Vec<String>),
}

/// The wishes, in the words of `docker run`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// `--entrypoint`: replaces the image's, and drops its cmd.
    pub entrypoint: Option<Vec<String>>,
    /// What comes after the image's name; the image's cmd if there is nothing.
    pub arguments: Vec<String>,
    /// `--env`: `NAME=VALUE`, in place of the image's.
    pub environment: Vec<String>,
    /// `--user`
    pub user: Option<String>,
    /// `--read-only`
    pub read_only: bool,
    /// What is done to it, and when.
    pub then: Option<(Cue, Deed)>,
    /// Other options, which only an engine has.
    pub engine: Vec<String>,
    /// When to kill it all; [`Run::DEADLINE`] if it is not given.
    pub deadline: Option<Duration>,
    /// Whether to show what is printed as it comes, besides keeping it.
    pub echo: bool,
}

impl Run {
    /// Far more than anything here takes, emulated and on a busy machine.
    pub const DEADLINE: Duration = Duration::from_secs(30);

    /// Runs `arguments` as `docker run IMAGE` would.
    pub fn new<S: ToString>(arguments: &[S]) -> Run {
        Run { arguments: arguments.iter().map(ToString::to_string).collect(), ..Run::default() }
    }

    /// The same without the image's init: what is started is PID 1 itself.
    #[must_use]
    pub fn without_init(mut self) -> Run {
        self.entrypoint = Some(Vec::new());
        self
    }

    /// The options of `docker run`, but for the entrypoint.
    pub fn options(&self) -> Vec<String> {
        let mut options: Vec<_> =
            self.environment.iter().map(|variable| format!("--env={variable}")).collect();
        options.extend(self.user.iter().map(|user| format!("--user={user}")));
        options.extend(self.read_only.then(|| "--read-only".to_string()));
        options.extend(self.engine.iter().cloned());
        options
    }

    /// As `docker run` takes them: an entrypoint is one word, and what remains are arguments.
    pub fn entrypoint_and_arguments(&self) -> (Option<String>, Vec<String>) {
        let Some(entrypoint) = &self.entrypoint else { return (None, self.arguments.clone()) };
        let mut words = entrypoint.iter().chain(&self.arguments).cloned();
        (words.next(), words.collect())
    }

    /// As a line that could be typed, but for the name of the engine.
    pub fn line(&self, image: &str) -> String {
        let (entrypoint, arguments) = self.entrypoint_and_arguments();
        let mut words = vec!["run".to_string()];
        words.extend(self.options());
        words.extend(entrypoint.map(|it| format!("--entrypoint={it}")));
        words.push(image.to_string());
        words.extend(arguments);
        words.join(" ")
    }
}

/// A process to start, with nothing left to decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// `NAME=VALUE`, in order.
    pub environment: Vec<String>,
    /// Where it starts.
    pub directory: String,
    /// As whom.
    pub user: User,
}

/// Whose process it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    pub home: String,
}

/// The image's own lists of users and groups, empty where it has none.
#[derive(Debug, Default)]
pub struct Accounts {
    /// `/etc/passwd`
    pub passwd: String,
    /// `/etc/group`
    pub group: String,
}

/// Merges the configuration of the image `name` with `run`.
pub fn process(
    name: &str,
    config: &ImageConfiguration,
    accounts: &Accounts,
    run: &Run,
) -> Result<Process> {
    let config = config.config().clone().unwrap_or_default();
    let wanted = run.user.clone().or_else(|| config.user().clone()).unwrap_or_default();
    let user = accounts.user(&wanted).with_context(|| format!("cannot be user `{wanted}`"))?;
    let words = words(&config, run);
    ensure!(!words.is_empty(), "cannot run `{name}`: it has neither entrypoint nor cmd");
    let mut environment = vec![PATH.to_string(), format!("HOSTNAME={name}")];
    for variable in config.env().iter().flatten().chain(&run.environment) {
        set(&mut environment, variable);
    }
    if !environment.iter().any(|it| it.starts_with("HOME=")) {
        environment.push(format!("HOME={}", user.home));
    }
    let directory = config.working_dir().clone().filter(|it| !it.is_empty());
    let directory = directory.unwrap_or_else(|| "/".to_string());
    Ok(Process { words, environment, directory, user })
}

fn words(config: &oci_spec::image::Config, run: &Run) -> Vec<String> {
    let own = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (mut words, cmd) = match &run.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), Vec::new()),
        None => (own(config.entrypoint()), own(config.cmd())),
    };
    words.extend(if run.arguments.is_empty() { cmd } else { run.arguments.clone() });
    words
}

fn set(environment: &mut Vec<String>, variable: &str) {
    let name = variable.split_once('=').map_or(variable, |(name, _)| name);
    let is_it = |other: &&mut String| other.split_once('=').is_some_and(|it| it.0 == name);
    match environment.iter_mut().find(is_it) {
        Some(other) => *other = variable.to_string(),
        None => environment.push(variable.to_string()),
    }
}

impl Accounts {
    /// `USER`, `USER:GROUP`, by name or number; root if it is empty.
    fn user(&self, wanted: &str) -> Result<User> {
        let (user, group) =
            wanted.split_once(':').map_or((wanted, None), |(user, group)| (user, Some(group)));
        let user = if user.is_empty() { "0" } else { user };
        let entry = find(&self.passwd, user);
        let field = |index| entry.as_ref().and_then(|entry| entry.get(index).copied());
        let uid = field(2).unwrap_or(user).parse();
        let uid = uid.with_context(|| format!("its /etc/passwd has no `{user}`"))?;
        let gid = match group {
            Some(group) => self.gid(group)?,
            None => field(3).unwrap_or("0").parse().context("its /etc/passwd has a bad group")?,
        };
        let is_member = |entry: &&str| {
            let members = entry.split(':').nth(3).unwrap_or_default();
            members.split(',').any(|member| Some(member) == field(0))
        };
        let groups = match group {
            Some(_) => Vec::new(),
            None => self.group.lines().filter(is_member).filter_map(gid_of).collect(),
        };
        let home = field(5).filter(|home| !home.is_empty()).unwrap_or("/").to_string();
        Ok(User { uid, gid, groups, home })
    }

    fn gid(&self, group: &str) -> Result<u32> {
        let entry = find(&self.group, group);
        let gid = entry.and_then(|entry| entry.get(2).copied()).unwrap_or(group).parse();
        gid.with_context(|| format!("its /etc/group has no `{group}`"))
    }
}

fn gid_of(entry: &str) -> Option<u32> {
    entry.split(':').nth(2)?.parse().ok()
}

/// The entry with this name or number.
fn find<'a>(table: &'a str, wanted: &str) -> Option<Vec<&'a str>> {
    let entries = || table.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let by = |index: usize| entries().find(|entry| entry.get(index) == Some(&wanted));
    by(0).or_else(|| by(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: (&str, &str) = (
        "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65531::/home/nonroot:\n",
        "root:x:0:\nweb:x:80:nonroot\nother:x:81:root,nonroot\n",
    );

    fn accounts() -> Accounts {
        Accounts { passwd: ACCOUNTS.0.to_string(), group: ACCOUNTS.1.to_string() }
    }

    #[track_caller]
    fn is(wanted: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let expected = User { uid, gid, groups: groups.to_vec(), home: home.to_string() };
        assert_eq!(accounts().user(wanted).unwrap(), expected);
    }

    #[track_caller]
    fn runs(config: &str, run: &Run, expected: &str) {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},
                "config":{config}}}"#
        );
        let config = ImageConfiguration::from_reader(text.as_bytes()).unwrap();
        let process = process("it", &config, &accounts(), run).unwrap();
        let line = [process.environment.join(" "), process.words.join(" ")].join(" $ ");
        assert_eq!(line.replace(PATH, "PATH"), expected);
    }

    #[test]
    fn a_user_is_found_by_name_or_number_with_groups_and_home() {
        is("", 0, 0, &[81], "/root");
        is("nonroot", 65532, 65531, &[80, 81], "/home/nonroot");
        is("65532", 65532, 65531, &[80, 81], "/home/nonroot");
        is("65532:web", 65532, 80, &[], "/home/nonroot");
        is("1000", 1000, 0, &[], "/");
        is("1000:1001", 1000, 1001, &[], "/");
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = accounts().user("nobody").unwrap_err();
        assert!(error.to_string().contains("its /etc/passwd has no `nobody`"), "{error}");
    }

    #[test]
    fn arguments_replace_the_cmd_and_an_entrypoint_drops_it() {
        let config = r#"{"Entrypoint":["/sbin/pid1"],"Cmd":["a","b"]}"#;
        runs(config, &Run::default(), "PATH HOSTNAME=it HOME=/root $ /sbin/pid1 a b");
        runs(config, &Run::new(&["c"]), "PATH HOSTNAME=it HOME=/root $ /sbin/pid1 c");
        let without = Run::new(&["c"]).without_init();
        runs(config, &without, "PATH HOSTNAME=it HOME=/root $ c");
    }

    #[test]
    fn the_image_s_variables_replace_the_defaults() {
        let config = r#"{"Cmd":["a"],"Env":["X=1","PATH=/x","HOME=/h","X=2"],"User":"1"}"#;
        runs(config, &Run::default(), "PATH=/x HOSTNAME=it X=2 HOME=/h $ a");
    }
}
