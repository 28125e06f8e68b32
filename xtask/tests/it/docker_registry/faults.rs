//! A registry that misbehaves, at every stage of a push: either all is there, or no tag has moved,
//! and the next push carries on.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::server::{Door, Server};
use crate::push::fixture::{Project, Run, Running, comes_about, fails, run_with};
use crate::push::proxy::{Fault, Proxy, Stage};

/// How many pushes are under way at once: most of them wait for a retry.
const THREADS: usize = 8;

const PATIENT: &str = "--timeout=60";

/// How long it may take to leave after Ctrl-C.
const PROMPT: Duration = Duration::from_secs(5);

/// How long something may take to come about that must.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where it goes wrong, and what the error then begins with.
pub const STAGES: &[(Stage, &str)] = &[
    (Stage::Ping, "cannot reach the registry `"),
    (Stage::BlobHead, "cannot look for "),
    (Stage::Mount, "cannot upload "),
    (Stage::UploadPost, "cannot upload "),
    (Stage::UploadPut, "cannot upload "),
    (Stage::ManifestHead, "cannot look for the "),
    (Stage::ManifestPut, "cannot push the manifest of `scratch` for linux/"),
    (Stage::IndexPut, "cannot push the image index of `scratch` (sha256:"),
    (Stage::TagHead, "cannot look for the tag `"),
    (Stage::TagPut, "cannot move the tag `0.1.0-scratch` to the image index of `scratch`"),
];

/// How it goes wrong, and what the error then says.
pub const FAULTS: &[(&str, Fault, &str)] = &[
    (
        "500",
        Fault::Answer("500 Internal Server Error", "", ""),
        "it answers 500 Internal Server Error; its log may say why",
    ),
    (
        "503",
        Fault::Answer("503 Service Unavailable", "", "<html>"),
        "it answers 503 Service Unavailable; its log may say why",
    ),
    (
        "429",
        Fault::Answer("429 Too Many Requests", "Retry-After: 1\r\n", ""),
        "it answers 429 Too Many Requests; wait, then try again",
    ),
    ("408", Fault::Answer("408 Request Timeout", "", ""), "it answers 408 Request Timeout"),
    ("hang", Fault::Hang, "no answer within 1 s"),
    ("hang-answer", Fault::HangAnswer, "no answer within 1 s"),
    ("hang-body", Fault::HangBody, "it answers 500 Internal Server Error; its log may say why"),
    ("endless", Fault::Endless, "it answers 500 Internal Server Error; its log may say why"),
    ("cut-request", Fault::CutRequest, "the connection was dropped ("),
    ("cut-answer", Fault::CutAnswer, "the connection was dropped ("),
    ("lost-answer", Fault::LoseAnswer, "the connection was dropped ("),
];

/// One fault at one stage, in front of a registry of its own: some find a blob of one repository
/// in all others, and the fault would not be met.
pub struct Row<'a> {
    pub server: Server,
    pub project: &'a Project,
    pub proxy: Proxy,
    pub name: String,
    pub stage: Stage,
    pub step: &'static str,
    pub fault: Fault,
    pub cause: &'static str,
}

impl Row<'_> {
    fn push(&self, timeout: &str) -> Run {
        let repository = format!("{}/{}", self.proxy.address, self.name);
        let mut arguments = vec!["push", &repository, "scratch", timeout];
        // A repository that nobody has: the registry begins an upload instead.
        let from = format!("--mount-from={}/nothing", self.proxy.address);
        if self.stage == Stage::Mount {
            arguments.push(&from);
        }
        self.project.run(&arguments)
    }

    /// Whether the last thing was done, and only nobody was told.
    pub fn is_untold(&self) -> bool {
        let late = [Fault::LoseAnswer, Fault::CutAnswer, Fault::HangAnswer];
        self.stage == Stage::TagPut && late.contains(&self.fault)
    }

    /// Pushes while nothing is wrong: then all is there.
    fn completes(&self) {
        self.proxy.heal();
        let run = self.push(PATIENT);
        assert_eq!(run.code, Some(0), "{}: {}", self.name, run.stderr);
        self.server.has_all(&self.name, self.project, "scratch");
    }
}

/// How long xtask waits for an answer: where one comes, a busy machine may take its time.
fn timeout(fault: Fault) -> &'static str {
    match fault {
        Fault::Hang | Fault::HangAnswer | Fault::HangBody => "--timeout=1",
        _ => PATIENT,
    }
}

/// Debian's registry, which lets everybody in.
pub fn open() -> Server {
    Server::start(&Door::Open)
}

/// Does `check` for every one of `stages` and every fault, and prints what it says came of it:
/// `--nocapture` shows the table.
pub fn each_row(
    kind: &str,
    start: fn() -> Server,
    stages: &[(Stage, &'static str)],
    check: impl Fn(&Row) -> &'static str + Sync,
) {
    // The first layer goes up first: its requests are those that a fault meets.
    let project = Project::new(&["scratch"], &["linux/amd64", "linux/arm/v7"], 2_000_000);
    let rows = stages.iter().flat_map(|stage| FAULTS.iter().map(move |fault| (stage, fault)));
    let rows = Mutex::new(rows);
    let next = || rows.lock().expect("no holder panics").next();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(((stage, step), (name, fault, cause))) = next() {
                    let server = start();
                    let outcome = check(&Row {
                        proxy: Proxy::start(Some(&server.address)),
                        server,
                        project: &project,
                        name: format!("{kind}/{stage:?}-{name}").to_lowercase(),
                        stage: *stage,
                        step,
                        fault: *fault,
                        cause,
                    });
                    println!("| {kind} | {stage:?} | {name} | {outcome} |");
                }
            });
        }
    });
}

#[test]
fn a_fault_that_passes_is_survived() {
    each_row("passing", open, STAGES, passes);
}

/// The push succeeds in spite of the fault.
pub fn passes(row: &Row) -> &'static str {
    row.proxy.set(row.stage, row.fault, 2);
    let run = row.push(timeout(row.fault));
    assert_eq!(run.code, Some(0), "{}: {}", row.name, run.stderr);
    // It has met the fault, and says so.
    assert!(run.stderr.contains(row.cause), "{}: {}", row.name, run.stderr);
    row.server.has_all(&row.name, row.project, "scratch");
    "all is there"
}

#[test]
fn a_fault_that_stays_moves_no_tag_and_the_next_push_completes() {
    each_row("staying", open, STAGES, stays);
}

/// The push fails, and the next one succeeds.
pub fn stays(row: &Row) -> &'static str {
    row.proxy.set(row.stage, row.fault, usize::MAX);
    let run = row.push(timeout(row.fault));
    let last = run.stderr.lines().last().unwrap_or_default().to_string();
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{}: {last}", row.name);
    assert!(last.contains(row.step) && last.contains(row.cause), "{}: {last}", row.name);
    assert!(last.ends_with("; tried 4 times"), "{}: {last}", row.name);
    let tags = row.server.tags(&row.name);
    // The tag did move, only nobody was told; what it points at is whole.
    let is_untold = row.is_untold();
    let expected: &[&str] = if is_untold { &["0.1.0-scratch"] } else { &[] };
    assert_eq!(tags, expected, "{}", row.name);
    if matches!(row.stage, Stage::TagHead | Stage::TagPut) {
        row.server.has_contents(&row.name, row.project, "scratch");
    } else {
        assert!(last.contains("no tag was moved"), "{}: {last}", row.name);
    }
    row.completes();
    if is_untold {
        "one tag moved, to what is whole; the next push completes"
    } else {
        "no tag moved; the next push completes"
    }
}

#[test]
fn a_fault_among_the_tags_leaves_each_right_old_or_new_and_the_next_push_completes() {
    thread::scope(|scope| {
        for (name, fault, cause) in FAULTS {
            scope.spawn(move || a_fault_among_the_tags(name, *fault, cause));
        }
    });
}

/// The first tag is moved, and the second cannot be.
#[track_caller]
fn a_fault_among_the_tags(name: &str, fault: Fault, cause: &str) {
    let (server, new, proxy, repository) = setting();
    let old = Project::new(&["scratch"], &["linux/386"], 500);
    old.push(&[&repository, "scratch"]);
    proxy.set_after(1, Stage::TagPut, fault);
    let run = new.run(&["push", &repository, "scratch", timeout(fault)]);
    let last = run.stderr.lines().last().unwrap_or_default();
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{name}: {last}");
    let start = format!("error: cannot move all tags of `{repository}`: cannot move the tag `");
    assert!(last.starts_with(&start) && last.contains(cause), "{name}: {last}");
    let [old_index, new_index] = [&old, &new].map(|it| it.index("scratch").1);
    let tags = new.tags("scratch");
    let found: Vec<_> =
        tags.iter().map(|it| server.get("pid1", &format!("manifests/{it}")).1).collect();
    assert_eq!(found[0], new_index, "{name}");
    assert!(found.iter().all(|it| *it == old_index || *it == new_index), "{name}");
    assert_eq!(found.last(), Some(&old_index), "{name}");
    server.has_contents("pid1", &old, "scratch");
    server.has_contents("pid1", &new, "scratch");
    proxy.heal();
    new.push(&[&repository, "scratch"]);
    server.has_all("pid1", &new, "scratch");
    println!("| after a tag | TagPut | {name} | each tag is old or new; the next push completes |");
}

/// A project with two images, a registry, and a proxy in front of it.
fn setting() -> (Server, Project, Proxy, String) {
    let server = Server::start(&Door::Open);
    let project = Project::new(&["scratch", "static"], &["linux/amd64"], 2_000_000);
    let proxy = Proxy::start(Some(&server.address));
    let repository = format!("{}/pid1", proxy.address);
    (server, project, proxy, repository)
}

#[test]
fn a_failure_in_the_second_image_moves_no_tag_of_the_first() {
    let (server, project, proxy, repository) = setting();
    let (digest, _) = project.manifests("static").remove(0);
    let refuse =
        Fault::Answer("400 Bad Request", "", r#"{"errors":[{"code":"MANIFEST_INVALID"}]}"#);
    proxy.set(Stage::IndexPut, refuse, usize::MAX);
    let run = project.run(&["push", &repository, "scratch", "static"]);
    assert_eq!(run.code, Some(1));
    assert_eq!(server.tags("pid1"), [""; 0]);
    assert_eq!(server.get("pid1", &format!("manifests/{digest}")).0, 200);
    proxy.heal();
    project.push(&[&repository, "scratch", "static"]);
    server.has_all("pid1", &project, "scratch");
    server.has_all("pid1", &project, "static");
}

#[test]
fn what_no_second_try_can_mend_is_tried_once() {
    let (_server, project, proxy, repository) = setting();
    let body = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}"#;
    proxy.set(Stage::ManifestPut, Fault::Answer("400 Bad Request", "", body), usize::MAX);
    let (digest, _) = project.manifests("scratch").remove(0);
    project.cannot_push(
        &[&repository, "scratch"],
        &format!(
            "error: cannot push to `{repository}`, no tag was moved: cannot push the manifest of \
             `scratch` for linux/amd64 ({digest}): it answers 400 Bad Request (MANIFEST_INVALID: \
             no)"
        ),
    );
    let puts = proxy.seen().into_iter().filter(|it| it.stage == Stage::ManifestPut).count();
    assert_eq!(puts, 1);
}

#[test]
fn a_registry_whose_disk_is_full_is_quoted() {
    let (_server, project, proxy, repository) = setting();
    let body = r#"{"errors":[{"code":"UNKNOWN","message":"no space left on device"}]}"#;
    let full = Fault::Answer("500 Internal Server Error", "", body);
    proxy.set(Stage::ManifestPut, full, usize::MAX);
    let (digest, _) = project.manifests("scratch").remove(0);
    project.cannot_push(
        &[&repository, "scratch"],
        &format!(
            "error: cannot push to `{repository}`, no tag was moved: cannot push the manifest of \
             `scratch` for linux/amd64 ({digest}): it answers 500 Internal Server Error (UNKNOWN: \
             no space left on device); its log may say why; tried 4 times"
        ),
    );
}

#[test]
fn who_may_not_push_is_told_so() {
    let (_server, project, proxy, repository) = setting();
    proxy.set(Stage::UploadPost, Fault::Answer("403 Forbidden", "", ""), usize::MAX);
    let address = &proxy.address;
    let run = project.run(&["push", &repository, "scratch"]);
    let last = run.stderr.lines().last().unwrap_or_default();
    let expected = format!(
        "it wants a login, and no login for `{address}` is known; run `docker login {address}`, or \
         give `--username NAME --password-stdin`"
    );
    assert!(last.ends_with(&expected), "{last}");
}

#[test]
fn who_may_begin_an_upload_and_not_end_it_is_told_so() {
    let (_server, project, proxy, repository) = setting();
    let refuse = Fault::Answer("401 Unauthorized", "WWW-Authenticate: Basic realm=x\r\n", "");
    proxy.set(Stage::UploadPut, refuse, usize::MAX);
    let arguments = ["push", &repository, "scratch", "--username=bob", "--password-stdin"];
    let run = run_with(&mut project.xtask(&arguments), b"hunter2");
    let last = run.stderr.lines().last().unwrap_or_default();
    let why = ": it refuses user `bob` (from --username): wrong password, or no right to push to \
               `pid1`";
    assert!(last.contains("cannot upload ") && last.ends_with(why), "{last}");
}

#[test]
fn an_upload_that_goes_elsewhere_takes_no_login_along() {
    let (server, project, _, _) = setting();
    // The first asks for a login once, the second sends uploads to the third.
    let asking = Proxy::start(Some(&server.address));
    let challenge = Fault::Answer("401 Unauthorized", "WWW-Authenticate: Basic realm=x\r\n", "");
    asking.set(Stage::Ping, challenge, 1);
    let sending = Proxy::start(Some(&asking.address));
    let store = Proxy::start(Some(&server.address));
    sending.set(Stage::UploadPost, Fault::Elsewhere(store.address.clone().leak()), usize::MAX);
    let push = |image| {
        let repository = format!("{}/pid1", sending.address);
        let arguments = ["push", &repository, image, "--username=bob", "--password-stdin"];
        run_with(&mut project.xtask(&arguments), b"hunter2")
    };
    let run = push("scratch");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    server.has_all("pid1", &project, "scratch");
    let has_login = |proxy: &Proxy, stage| {
        let seen = proxy.seen().into_iter().filter(|it| it.stage == stage);
        seen.map(|it| it.authorization.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(has_login(&store, Stage::UploadPut), [false; 3]);
    assert_eq!(has_login(&sending, Stage::UploadPost), [true; 3]);
    assert_eq!(has_login(&sending, Stage::UploadPut), [false; 0]);
    // Nor does it get one when it asks.
    store.forget();
    store.set(Stage::UploadPut, challenge, usize::MAX);
    let run = push("static");
    let last = run.stderr.lines().last().unwrap_or_default();
    let place = format!("it sends us to `http://{}/v2/pid1/blobs/uploads/", store.address);
    assert!(last.contains(&place) && last.ends_with("`, which does not let us"), "{last}");
    assert!(store.seen().iter().all(|it| it.authorization.is_none()));
}

#[test]
fn an_upload_that_the_registry_forgot_begins_again() {
    let (server, project, proxy, repository) = setting();
    proxy.set(Stage::UploadPut, Fault::Answer("404 Not Found", "", ""), 2);
    let run = project.push(&[&repository, "scratch"]);
    assert!(run.stderr.contains("the registry has forgotten the upload"), "{}", run.stderr);
    server.has_all("pid1", &project, "scratch");
}

#[test]
fn a_slow_upload_is_not_taken_for_a_hanging_one() {
    let server = Server::start(&Door::Open);
    // More than all buffers on the way can hold.
    let project = Project::new(&["scratch"], &["linux/amd64"], 40_000_000);
    let proxy = Proxy::start(Some(&server.address));
    proxy.set(Stage::UploadPut, Fault::Slow, usize::MAX);
    let repository = format!("{}/pid1", proxy.address);
    let start = Instant::now();
    let run = project.push(&[&repository, "scratch", "--timeout=3"]);
    assert!(start.elapsed() > Duration::from_secs(5), "it was not slow: {:?}", start.elapsed());
    assert!(!run.stderr.contains("trying again"), "{}", run.stderr);
    server.has_all("pid1", &project, "scratch");
}

#[test]
fn eight_blobs_go_up_side_by_side() {
    let server = Server::start(&Door::Open);
    let project = Project::new(&["scratch", "static"], &["linux/amd64", "linux/386"], 1000);
    let proxy = Proxy::start(Some(&server.address));
    proxy.set(Stage::UploadPut, Fault::Meet(8), 8);
    let run = project.push(&[&format!("{}/pid1", proxy.address), "scratch", "static"]);
    assert!(!run.stderr.contains("trying again"), "{}", run.stderr);
    server.has_all("pid1", &project, "static");
}

#[test]
fn retry_after_is_obeyed() {
    let (_server, project, proxy, repository) = setting();
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        proxy.forget();
        proxy.set(Stage::Ping, Fault::Answer(status, "Retry-After: 2\r\n", ""), 1);
        project.push(&[&repository, "scratch"]);
        let pings: Vec<_> = proxy.seen().into_iter().filter(|it| it.stage == Stage::Ping).collect();
        let [first, second] = pings.as_slice() else { panic!("{status}: {pings:?}") };
        assert!(second.at - first.at >= Duration::from_secs(2), "{status}: {pings:?}");
    }
}

const INTERRUPTED: &str = "error: cannot push to `REPOSITORY`, no tag was moved: interrupted";

/// Presses Ctrl-C when `ready`; the push then ends at once, as `expected`, and has moved no tag.
#[track_caller]
fn interrupted(
    setting: &(Server, Project, Proxy, String),
    ready: impl Fn(&Running) -> bool,
    expected: &str,
) {
    let (server, project, _, repository) = setting;
    let running = Running::start(&mut project.xtask(&["push", repository, "scratch"]), b"");
    let is_ready = comes_about(PATIENCE, || ready(&running));
    assert!(is_ready, "{}", running.stderr());
    let id = i32::try_from(running.child.id()).expect("a process id is an i32");
    kill(Pid::from_raw(id), Signal::SIGINT).expect("it runs");
    let pressed = Instant::now();
    let run = running.finish();
    assert!(pressed.elapsed() < PROMPT, "it took {:?}", pressed.elapsed());
    fails(&run, &expected.replace("REPOSITORY", repository));
    assert_eq!(server.tags("pid1"), [""; 0]);
}

#[test]
fn ctrl_c_in_the_middle_of_an_upload_moves_no_tag() {
    let setting = setting();
    let proxy = setting.2.clone();
    proxy.set(Stage::UploadPut, Fault::Hang, usize::MAX);
    let ready = |_: &_| proxy.seen().iter().any(|it| it.stage == Stage::UploadPut);
    interrupted(&setting, ready, INTERRUPTED);
}

#[test]
fn a_long_retry_after_is_cut_and_ctrl_c_ends_the_wait() {
    let setting = setting();
    let busy = Fault::Answer("429 Too Many Requests", "Retry-After: 86400\r\n", "");
    setting.2.set(Stage::BlobHead, busy, usize::MAX);
    let ready = |running: &Running| running.stderr().contains("trying again in 60000 ms");
    interrupted(&setting, ready, INTERRUPTED);
}

#[test]
fn ctrl_c_among_the_tags_says_that_some_may_have_moved() {
    let setting = setting();
    let proxy = setting.2.clone();
    proxy.set(Stage::TagPut, Fault::Hang, usize::MAX);
    let ready = |_: &_| proxy.seen().iter().any(|it| it.stage == Stage::TagPut);
    interrupted(&setting, ready, "error: cannot move all tags of `REPOSITORY`: interrupted");
    setting.0.has_contents("pid1", &setting.1, "scratch");
}
