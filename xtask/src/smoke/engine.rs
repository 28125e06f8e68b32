//! Runs images with docker or podman: the same checks as in the sandbox, where people run them.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor, ImageManifest};

use super::container::{Cue, Deed, Run};
use super::machine::Machine;
use super::rootfs::Rootfs;
use super::sandbox::{Ran, Status};
use super::{binfmt, sandbox};
use crate::oci::layout::Layout;
use crate::platform::Platform;
use crate::process::Interrupt;
use crate::{Context, process};

/// How long an engine may take for anything that is not a run.
const PATIENCE: Duration = Duration::from_mins(2);

/// How often we look at a run.
const POLL: Duration = Duration::from_millis(5);

/// What the probe says when it can be stopped.
const READY: &str = "ready\n";

/// What stands before the name of what was loaded, in both engines' words.
const LOADED: &str = "Loaded image: ";

/// An engine, as far as it differs from the other.
#[derive(Debug, PartialEq, Eq)]
pub struct Engine {
    /// Its command.
    pub program: &'static str,
    /// What to do where it does not answer.
    remedy: &'static str,
}

/// Docker, from 25 on, which loads OCI layouts.
pub static DOCKER: Engine = Engine {
    program: "docker",
    remedy: "start it, or say in DOCKER_HOST where it is; `.ci/engine start` starts one where no \
             service manager does",
};

/// Podman, from 4 on.
pub static PODMAN: Engine =
    Engine { program: "podman", remedy: "install it (on Debian 12 `.ci/install` does)" };

impl fmt::Display for Engine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.program)
    }
}

impl Engine {
    /// Fails, with the remedy, unless it answers.
    pub fn ensure_ready(&self, context: &Context) -> Result<()> {
        let command = self.command(&["info"]);
        let answer = process::output(&context.ui, &context.interrupt, command, PATIENCE);
        answer.map(drop).with_context(|| format!("cannot use {self}; {}", self.remedy))
    }

    /// What runs `platform` in it; the error says what to do where nothing does. Unlike the
    /// sandbox it takes what is registered for the whole machine.
    pub fn machine(&self, platform: &Platform) -> Result<Machine> {
        if platform.is_native() {
            return Ok(Machine::Native);
        }
        ensure!(
            binfmt::is_registered(platform),
            "cannot run {platform} with {self}: this machine has no emulator registered for it \
             (flag F); install qemu-user-binfmt or qemu-user-static, let `.ci/engine start` \
             register it, or say `--no-smoke {platform}`"
        );
        Ok(Machine::Registered)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(words);
        command
    }

    /// All that it says of its version and those of its parts.
    pub fn version(&self, context: &Context) -> Result<String> {
        ask(context, self, &["version"])
    }

    /// For what must be tidied away even if we were interrupted; what cannot be is left to its
    /// owner.
    fn quietly(&self, words: &[&str]) {
        let _ = self.say(words, PATIENCE);
    }

    /// Says something to it that is not echoed, and gives what it prints.
    fn say(&self, words: &[&str], limit: Duration) -> Result<String> {
        let mut client = Client::start(&mut self.command(words))?;
        let status = client.wait(limit).with_context(|| format!("`{self}` was ended"))?;
        let (stdout, stderr) = client.printed();
        ensure!(status.success(), "cannot {}: {}", words.join(" "), stderr.trim());
        Ok(stdout)
    }
}

/// An image for one platform, loaded; removed when dropped.
pub struct Loaded<'a> {
    engine: &'static Engine,
    name: String,
    /// What runs it: the digest, as this engine says it.
    id: String,
    pub rootfs: &'a Rootfs,
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        self.engine.quietly(&["image", "rm", "--force", &self.name]);
    }
}

impl<'a> Loaded<'a> {
    /// Loads what `layout` has for the image's platform, and makes sure that it is that.
    pub fn new(
        context: &Context,
        engine: &'static Engine,
        layout: &Layout,
        rootfs: &'a Rootfs,
    ) -> Result<Loaded<'a>> {
        let (descriptor, manifest) = layout.manifest(rootfs.platform)?;
        let name = unique(&format!("{}-{}", rootfs.name, rootfs.platform.slug()));
        let archive = archive(layout, &descriptor, &manifest, &name)
            .context("cannot pack the layout for the engine")?;
        // From here on it is removed, however far the engine gets.
        let mut loaded = Loaded { engine, name, id: String::new(), rootfs };
        let load = engine.command(&["load", "--input", text(archive.path())?]);
        // Not interrupted: the engine could go on after its client has gone.
        let said = process::output(&context.ui, &Interrupt::default(), load, PATIENCE)?;
        context.interrupt.check()?;
        let name = said.lines().find_map(|line| line.strip_prefix(LOADED));
        let name = name.with_context(|| format!("cannot load: {engine} says `{}`", said.trim()))?;
        loaded.name = name.trim().to_string();
        let id = ask(context, engine, &["image", "inspect", "--format={{.Id}}", &loaded.name])?;
        loaded.id = id.trim().to_string();
        // Engines with a store of blobs say the manifest's, the others the configuration's.
        let digests = [descriptor.digest().digest(), manifest.config().digest().digest()];
        let is_it = digests.contains(&loaded.id.trim_start_matches("sha256:"));
        ensure!(is_it, "{engine} made `{}` of what it loaded", loaded.id);
        Ok(loaded)
    }

    /// Runs it once.
    pub fn run(&self, run: &Run, interrupt: &Interrupt) -> Result<Ran> {
        let name = unique(&self.rootfs.name);
        let mut command = self.engine.command(&[]);
        command.args(self.words(run, &name)?);
        let container = Container { engine: self.engine, name };
        let ran = container.watch(command, run, interrupt);
        ran.with_context(|| format!("cannot {}", self.line(run)))
    }

    /// What [`Loaded::run`] does, but for names and the probe.
    pub fn line(&self, run: &Run) -> String {
        format!("{} {}", self.engine, run.line(&self.rootfs.name))
    }

    /// The words after `docker`.
    fn words(&self, run: &Run, name: &str) -> Result<Vec<OsString>> {
        let platform = self.rootfs.platform.to_string();
        let mut words: Vec<OsString> =
            ["run", "--pull=never", "--network=none", "--name", name].map(OsString::from).into();
        words.extend(["--platform".into(), platform.into()]);
        let probe = sandbox::probe(self.rootfs.platform)?;
        for place in sandbox::places(self.rootfs) {
            words.extend(["--volume".into(), format!("{}:{place}:ro", text(&probe)?).into()]);
        }
        words.extend(run.options().into_iter().map(OsString::from));
        let (entrypoint, arguments) = run.entrypoint_and_arguments();
        words.extend(entrypoint.map(|it| format!("--entrypoint={it}").into()));
        words.push(self.id.clone().into());
        words.extend(arguments.into_iter().map(OsString::from));
        Ok(words)
    }
}

/// A name that nobody else has, on a machine whose engines are shared.
fn unique(what: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("pid1-smoke-{}-{count}-{what}", std::process::id())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("cannot use `{}`: it is not UTF-8", path.display()))
}

fn ask(context: &Context, engine: &Engine, words: &[&str]) -> Result<String> {
    process::output(&context.ui, &context.interrupt, engine.command(words), PATIENCE)
}

/// The layout cut down to one manifest, under a name of ours, as both engines load it.
fn archive(
    layout: &Layout,
    descriptor: &Descriptor,
    manifest: &ImageManifest,
    name: &str,
) -> Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    let mut archive = tar::Builder::new(file.as_file());
    let mut add = |path: &str, bytes: &[u8]| -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        Ok(archive.append_data(&mut header, path, bytes)?)
    };
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add("index.json", &serde_json::to_vec(&index(descriptor, name))?)?;
    add("manifest.json", &serde_json::to_vec(&docker_manifest(manifest, name))?)?;
    for blob in [descriptor, manifest.config()].into_iter().chain(manifest.layers()) {
        add(&blob_name(blob), &layout.read_blob(blob)?)?;
    }
    archive.finish()?;
    drop(archive);
    Ok(file)
}

fn blob_name(blob: &Descriptor) -> String {
    format!("blobs/sha256/{}", blob.digest().digest())
}

/// Podman takes the name from the first annotation, docker from the second.
fn index(descriptor: &Descriptor, name: &str) -> serde_json::Value {
    serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": descriptor.media_type().to_string(),
            "digest": descriptor.digest().to_string(),
            "size": descriptor.size(),
            "annotations": {
                ANNOTATION_REF_NAME: name,
                "io.containerd.image.name": format!("docker.io/library/{name}:latest"),
            },
        }],
    })
}

/// For a docker without containerd's store, which reads nothing else.
fn docker_manifest(manifest: &ImageManifest, name: &str) -> serde_json::Value {
    serde_json::json!([{
        "Config": blob_name(manifest.config()),
        "RepoTags": [format!("{name}:latest")],
        "Layers": manifest.layers().iter().map(blob_name).collect::<Vec<_>>(),
    }])
}

/// One run of an image, by the name that the engine knows it by.
struct Container {
    engine: &'static Engine,
    name: String,
}

impl Container {
    /// Follows the client that `command` starts to its end. However it goes: nothing stays.
    fn watch(&self, mut command: Command, run: &Run, interrupt: &Interrupt) -> Result<Ran> {
        let start = Instant::now();
        let mut client = Client::start(&mut command)?;
        let watched = self.until_end(&mut client, run, start, interrupt);
        // Not with `run --rm`: docker 26 then loses what is printed last, once in fifty times.
        self.engine.quietly(&["rm", "--force", &self.name]);
        if !matches!(watched, Ok((Status::Exited(_), ..))) {
            client.kill();
        }
        let (status, after, beside) = watched?;
        let (stdout, stderr) = client.printed();
        Ok(Ran { status, stdout: stdout + &beside, stderr, took: start.elapsed(), after })
    }

    /// How it ended, how long after what was done to it, and what was printed beside it.
    fn until_end(
        &self,
        client: &mut Client,
        run: &Run,
        start: Instant,
        interrupt: &Interrupt,
    ) -> Result<(Status, Option<Duration>, String)> {
        let deadline = run.deadline.unwrap_or(Run::DEADLINE);
        let mut then = run.then.clone();
        let mut done = None;
        let mut beside = String::new();
        loop {
            if let Some(status) = client.child.try_wait().context("cannot wait")? {
                let killed = || Status::Killed(status.signal().unwrap_or_default());
                let status = status.code().map_or_else(killed, Status::Exited);
                return Ok((status, done.map(|it: Instant| it.elapsed()), beside));
            }
            interrupt.check()?;
            if start.elapsed() > deadline {
                return Ok((Status::TimedOut, done.map(|it| it.elapsed()), beside));
            }
            if let Some((_, deed)) = then.take_if(|(cue, _)| self.has_come(cue, client)) {
                done = Some(Instant::now());
                beside = self.perform(&deed, &mut done)?;
            }
            thread::sleep(POLL);
        }
    }

    fn has_come(&self, cue: &Cue, client: &Client) -> bool {
        match cue {
            Cue::Printed(text) => client.has_printed(text),
            Cue::Runs => self.processes() >= 1,
            Cue::HasChild => self.processes() >= 2,
        }
    }

    /// How many processes there are in it; none before it runs, which the engine calls an error.
    fn processes(&self) -> usize {
        let listed = self.engine.say(&["top", &self.name], PATIENCE);
        // The first line is the table's head.
        listed.map_or(0, |it| it.lines().skip(1).count())
    }

    /// Does it; gives what somebody else printed meanwhile.
    fn perform(&self, deed: &Deed, done: &mut Option<Instant>) -> Result<String> {
        let mut tell = |words: &[&str]| {
            *done = Some(Instant::now());
            self.engine.say(&[words, &[self.name.as_str()]].concat(), PATIENCE).map(drop)
        };
        match deed {
            Deed::Signal(signal) => tell(&["kill", "--signal", &signal.to_string()])?,
            Deed::Stop => tell(&["stop"])?,
            Deed::StopBeside(words) => {
                let mut exec = self.engine.command(&["exec", &self.name]);
                let mut beside = Client::start(exec.args(words))?;
                let start = Instant::now();
                while !beside.has_printed(READY) {
                    if start.elapsed() > Run::DEADLINE {
                        beside.kill();
                        bail!("cannot exec: {}", beside.printed().1.trim());
                    }
                    thread::sleep(POLL);
                }
                tell(&["stop"])?;
                beside.wait(Run::DEADLINE).context("what came in by `exec` does not end")?;
                return Ok(beside.printed().0);
            }
        }
        Ok(String::new())
    }
}

/// The command of an engine, and what it prints.
struct Client {
    child: Child,
    stdout: Stream,
    stderr: Stream,
}

/// A pipe that a thread of its own reads to the end.
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Client {
    fn start(command: &mut Command) -> Result<Client> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is ours: it would end the client, and leave the container.
        let child = command.process_group(0).spawn();
        let name = command.get_program().display();
        let mut child = child.with_context(|| format!("cannot run `{name}`"))?;
        let stdout = Stream::new(child.stdout.take().expect("it is piped"));
        let stderr = Stream::new(child.stderr.take().expect("it is piped"));
        Ok(Client { child, stdout, stderr })
    }

    fn has_printed(&self, text: &str) -> bool {
        self.stdout.text().contains(text)
    }

    /// Waits for its end, and ends it when `limit` is over.
    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        process::wait(&Interrupt::default(), &mut self.child, Some(limit))
    }

    fn kill(&mut self) {
        // It may have ended meanwhile.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// All that it printed, once it has ended.
    fn printed(self) -> (String, String) {
        (self.stdout.finish(), self.stderr.finish())
    }
}

impl Stream {
    fn new(mut pipe: impl Read + Send + 'static) -> Stream {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = bytes.clone();
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            // What cannot be read is the end.
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                shared.lock().expect("no reader panics").extend(&buffer[..length]);
            }
        });
        Stream { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no reader panics")).into_owned()
    }

    fn finish(self) -> String {
        self.reader.join().expect("no reader panics");
        String::from_utf8_lossy(&self.bytes.lock().expect("no reader panics")).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_does_not_answer_is_given_up() {
        let silent = Engine { program: "sleep", remedy: "" };
        let error = silent.say(&["1000"], Duration::from_millis(1)).unwrap_err();
        assert_eq!(format!("{error:#}"), "`sleep` was ended: it took longer than 0 s");
    }
}
