//! A proxy in front of a registry that writes down what passes, and misbehaves when told to.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::fixture::comes_about;

/// How much of a slow upload is taken at once, how often, and the pause between: five seconds in
/// all, and quick enough for the kernel to say every now and then that there is room again.
const PIECE: usize = 1 << 19;
const SLOW_PIECES: usize = 40;
const PAUSE: Duration = Duration::from_millis(125);

/// How long a request waits for others.
const MEETING: Duration = Duration::from_secs(20);

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Ping,
    BlobHead,
    Mount,
    BlobGet,
    UploadPost,
    UploadPut,
    ManifestHead,
    ManifestGet,
    ManifestPut,
    IndexPut,
    TagHead,
    TagPut,
    Token,
    Other,
}

/// How it is answered instead of rightly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// With this status, a header and a body.
    Answer(&'static str, &'static str, &'static str),
    /// Not at all, while the connection stays.
    Hang,
    /// The connection ends in the middle of the request.
    CutRequest,
    /// The connection ends in the middle of the answer's head.
    CutAnswer,
    /// The connection ends before the answer's last byte.
    CutEnd,
    /// The answer stops in the middle of its head, while the connection stays.
    HangAnswer,
    /// The answer stops before its last byte, while the connection stays.
    HangEnd,
    /// It is an error, whose words stop in the middle, while the connection stays.
    HangBody,
    /// It is an error, whose words never end.
    Endless,
    /// Rightly, when so many requests of this stage have come; not at all, if they do not.
    Meet(usize),
    /// Rightly, but what is to come next is to go to this address.
    Elsewhere(&'static str),
    /// With a redirect to the same path at this address.
    Redirect(&'static str),
    /// Rightly, but the body is first taken a little at a time.
    Slow,
    /// The registry does it, and the answer is lost.
    LoseAnswer,
}

/// A request that came by.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Instant,
    pub stage: Stage,
    pub line: String,
    pub authorization: Option<String>,
}

/// What to do at which stage, how often, and how often not before that.
struct Plan {
    stage: Stage,
    fault: Fault,
    times: usize,
    before: usize,
}

/// The proxy, which lives as long as the test program.
#[derive(Clone)]
pub struct Proxy {
    pub address: String,
    upstream: Option<String>,
    seen: Arc<Mutex<Vec<Seen>>>,
    plan: Arc<Mutex<Option<Plan>>>,
}

impl Proxy {
    /// In front of `upstream`; without one, it knows nothing.
    pub fn start(upstream: Option<&str>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let proxy = Proxy {
            address: listener.local_addr().expect("it is bound").to_string(),
            upstream: upstream.map(ToString::to_string),
            seen: Arc::default(),
            plan: Arc::default(),
        };
        let serving = proxy.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let proxy = serving.clone();
                // A client that goes away is what many of these tests are about.
                thread::spawn(move || proxy.serve(stream).unwrap_or_default());
            }
        });
        proxy
    }

    /// Misbehaves from now on, `times` times.
    pub fn set(&self, stage: Stage, fault: Fault, times: usize) {
        self.follow(Some(Plan { stage, fault, times, before: 0 }));
    }

    /// Behaves `times` times more, and then no longer.
    pub fn set_after(&self, times: usize, stage: Stage, fault: Fault) {
        self.follow(Some(Plan { stage, fault, times: usize::MAX, before: times }));
    }

    /// Behaves from now on.
    pub fn heal(&self) {
        self.follow(None);
    }

    fn follow(&self, plan: Option<Plan>) {
        *self.plan.lock().expect("no holder panics") = plan;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no holder panics").clone()
    }

    pub fn forget(&self) {
        self.seen.lock().expect("no holder panics").clear();
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let Some(request) = Head::read(&mut client)? else {
            // A TLS greeting: answered as a server answers that does not know TLS.
            return client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        };
        let stage = request.stage();
        self.seen.lock().expect("no holder panics").push(Seen {
            at: Instant::now(),
            stage,
            line: request.line().to_string(),
            authorization: request.header("authorization"),
        });
        if let Some(fault) = self.next_fault(stage) {
            return self.misbehave(fault, &request, client);
        }
        let answer = self.forward(&request, &mut client)?;
        client.write_all(&answer)
    }

    fn next_fault(&self, stage: Stage) -> Option<Fault> {
        let mut plan = self.plan.lock().expect("no holder panics");
        let plan = plan.as_mut().filter(|it| it.stage == stage)?;
        if plan.before > 0 {
            plan.before -= 1;
            return None;
        }
        plan.times = plan.times.checked_sub(1)?;
        Some(plan.fault)
    }

    fn misbehave(&self, fault: Fault, request: &Head, mut client: TcpStream) -> io::Result<()> {
        match fault {
            Fault::Answer(status, header, body) => {
                swallow(&mut client, request.length())?;
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\n{header}Content-Length: {length}\r\n");
                client.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes())
            }
            Fault::Hang => hang(&mut client),
            Fault::CutRequest => {
                swallow(&mut client, request.length() / 2)?;
                client.shutdown(Shutdown::Both)
            }
            Fault::CutAnswer => {
                let answer = self.forward(request, &mut client)?;
                client.write_all(&answer[..answer.len().min(20)])
            }
            Fault::CutEnd => {
                let answer = self.forward(request, &mut client)?;
                client.write_all(&answer[..answer.len().saturating_sub(1)])
            }
            Fault::HangAnswer => {
                let answer = self.forward(request, &mut client)?;
                client.write_all(&answer[..answer.len().min(20)])?;
                hang(&mut client)
            }
            Fault::HangEnd => {
                let answer = self.forward(request, &mut client)?;
                client.write_all(&answer[..answer.len().saturating_sub(1)])?;
                hang(&mut client)
            }
            Fault::HangBody | Fault::Endless => {
                swallow(&mut client, request.length())?;
                complain(&mut client, fault == Fault::Endless)
            }
            Fault::Meet(count) => {
                let stage = request.stage();
                let come = || self.seen().iter().filter(|it| it.stage == stage).count();
                if !comes_about(MEETING, || come() >= count) {
                    return client.shutdown(Shutdown::Both);
                }
                let answer = self.forward(request, &mut client)?;
                client.write_all(&answer)
            }
            Fault::Elsewhere(address) => {
                let answer = self.forward(request, &mut client)?;
                let answer = String::from_utf8_lossy(&answer).replace(&self.address, address);
                client.write_all(answer.as_bytes())
            }
            Fault::Redirect(address) => {
                let path = request.line().split(' ').nth(1).unwrap_or_default();
                let head =
                    format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {address}{path}\r\n");
                let end = "Content-Length: 0\r\nConnection: close\r\n\r\n";
                client.write_all((head + end).as_bytes())
            }
            Fault::Slow => {
                let answer = self
                    .forward(request, &mut SlowStart { stream: client.try_clone()?, taken: 0 })?;
                client.write_all(&answer)
            }
            Fault::LoseAnswer => self.forward(request, &mut client).map(drop),
        }
    }

    /// Hands the request on, and gives the answer.
    fn forward(&self, request: &Head, client: &mut impl Read) -> io::Result<Vec<u8>> {
        let Some(upstream) = &self.upstream else {
            return Ok(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n".to_vec());
        };
        let mut upstream = TcpStream::connect(upstream)?;
        let head = request.text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        upstream.write_all(head.as_bytes())?;
        io::copy(&mut client.take(request.length()), &mut upstream)?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// A stream whose first bytes are taken a piece at a time, with a pause after each.
struct SlowStart {
    stream: TcpStream,
    taken: usize,
}

impl Read for SlowStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let pieces = self.taken / PIECE;
        let read = self.stream.read(buffer)?;
        self.taken += read;
        if self.taken / PIECE > pieces && pieces < SLOW_PIECES {
            thread::sleep(PAUSE);
        }
        Ok(read)
    }
}

/// The head of a request, to the empty line.
struct Head {
    text: String,
}

impl Head {
    /// None if it is not HTTP.
    fn read(stream: &mut TcpStream) -> io::Result<Option<Head>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            bytes.push(byte[0]);
            if !bytes[0].is_ascii_uppercase() {
                return Ok(None);
            }
        }
        Ok(Some(Head { text: String::from_utf8_lossy(&bytes).into_owned() }))
    }

    fn line(&self) -> &str {
        self.text.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1")
    }

    fn header(&self, name: &str) -> Option<String> {
        let headers = self.text.lines().filter_map(|line| line.split_once(": "));
        let mut values = headers.filter(|(it, _)| it.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.to_string())
    }

    fn length(&self) -> u64 {
        self.header("content-length").and_then(|it| it.parse().ok()).unwrap_or_default()
    }

    fn stage(&self) -> Stage {
        let (method, path) = self.line().split_once(' ').unwrap_or_default();
        let by_digest = path.contains("/manifests/sha256:");
        let is_index = self.header("content-type").is_some_and(|it| it.contains("index"));
        match method {
            "GET" if path == "/v2/" => Stage::Ping,
            "HEAD" if path.contains("/blobs/") => Stage::BlobHead,
            "POST" if path.contains("?mount=") => Stage::Mount,
            "GET" if path.contains("/blobs/") => Stage::BlobGet,
            "POST" if path.ends_with("/blobs/uploads/") => Stage::UploadPost,
            "PUT" if path.contains("/blobs/uploads/") => Stage::UploadPut,
            "HEAD" if by_digest => Stage::ManifestHead,
            "GET" if path.contains("/manifests/") => Stage::ManifestGet,
            "PUT" if by_digest && is_index => Stage::IndexPut,
            "PUT" if by_digest => Stage::ManifestPut,
            "HEAD" if path.contains("/manifests/") => Stage::TagHead,
            "PUT" if path.contains("/manifests/") => Stage::TagPut,
            "GET" | "POST" if path.starts_with("/token") => Stage::Token,
            _ => Stage::Other,
        }
    }
}

/// Says nothing, until the client has had enough.
fn hang(client: &mut TcpStream) -> io::Result<()> {
    io::copy(client, &mut io::sink()).map(drop)
}

/// Begins to say what is wrong, and stops, or never stops.
fn complain(client: &mut TcpStream, is_endless: bool) -> io::Result<()> {
    let error = "HTTP/1.1 500 Internal Server Error";
    if !is_endless {
        client.write_all(format!("{error}\r\nContent-Length: 100\r\n\r\n{{").as_bytes())?;
        return hang(client);
    }
    client.write_all(format!("{error}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes())?;
    loop {
        client.write_all(format!("1000\r\n{}\r\n", " ".repeat(0x1000)).as_bytes())?;
    }
}

fn swallow(client: &mut TcpStream, length: u64) -> io::Result<()> {
    io::copy(&mut client.take(length), &mut io::sink()).map(drop)
}
