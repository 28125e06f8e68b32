//! Uploads: what is there already is left alone, and what is sent are the layout's own bytes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use indicatif::ProgressBar;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::failure::Failure;
use super::{Registry, Repository, body, is_loopback};
use crate::oci::layout::sha256;

/// How often a running upload is looked at.
const TICK: Duration = Duration::from_millis(50);

/// Every type of manifest: what a tag points at may be any of them.
pub(super) const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A file that is to be uploaded, or the place of one to download.
#[derive(Debug, Clone)]
pub struct Blob {
    /// `sha256:…` of its bytes.
    pub digest: String,
    /// How many there are.
    pub size: u64,
    /// Where they lie, or are to lie.
    pub path: PathBuf,
    /// What it is, for messages.
    pub what: String,
}

/// A manifest or an image index: small, and pushed byte for byte.
#[derive(Debug, Clone)]
pub struct Document {
    /// `sha256:…` of its bytes.
    pub digest: String,
    /// The `Content-Type` it is pushed with.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What it is, for messages.
    pub what: String,
}

/// How a blob has come into the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// From here.
    Uploaded,
    /// From another repository of the registry.
    Mounted,
}

impl Registry {
    /// Whether the repository has the blob.
    pub async fn has(&self, blob: &Blob) -> Result<bool> {
        let step = format!("cannot look for {}", blob.what);
        let url = self.url(&format!("blobs/{}", blob.digest));
        self.persist(&step, || async {
            let response = self.send(Method::HEAD, &url, |it| it).await?;
            match response.status() {
                StatusCode::NOT_FOUND => Ok(false),
                _ => self.accept(response).await.map(|_| true),
            }
        })
        .await
    }

    /// Where the blob can be mounted from; nowhere, too, if we may not look there.
    pub async fn mountable_from(&self, blob: &Blob) -> Result<Option<Repository>> {
        let Some(name) = self.mount_from.clone() else { return Ok(None) };
        let from = Repository { registry: self.repository.registry.clone(), name };
        let step = format!("cannot look for {} in `{from}`", blob.what);
        let path = format!("/v2/{}/blobs/{}", from.name, blob.digest);
        let url = self.base.join(&path).expect("a repository's name needs no escape");
        let found = self.persist(&step, || async {
            match self.accept(self.send(Method::HEAD, &url, |it| it).await?).await {
                Err(failure) if failure.is_passing() => Err(failure),
                answer => Ok(answer.is_ok()),
            }
        });
        Ok(found.await?.then_some(from))
    }

    /// Uploads the blob, after a look whether its file is what the layout says; mounts it instead
    /// where that is asked for and the registry can.
    pub async fn upload(&self, blob: &Blob, bar: &ProgressBar) -> Result<Arrival> {
        let step = format!("cannot upload {} ({})", blob.what, blob.digest);
        let of_file = blob.clone();
        let file = tokio::task::spawn_blocking(move || open_checked(&of_file)).await;
        let file = file.context("cannot check a blob")??;
        let renewed = AtomicBool::new(false);
        self.persist(&step, || self.try_upload(blob, &file, bar, &renewed)).await
    }

    async fn try_upload(
        &self,
        blob: &Blob,
        file: &File,
        bar: &ProgressBar,
        renewed: &AtomicBool,
    ) -> Result<Arrival, Failure> {
        let Some(mut place) = self.begin(blob).await? else {
            bar.inc(blob.size);
            return Ok(Arrival::Mounted);
        };
        place.query_pairs_mut().append_pair("digest", &blob.digest);
        let response = self.put_file(place, file, blob.size, bar).await?;
        match response.status() {
            // A token runs out, but a new one does not at once.
            StatusCode::UNAUTHORIZED if !renewed.swap(true, Ordering::Relaxed) => {
                self.authorise(&response).await?;
                Err(Failure::Lost)
            }
            // A registry that was started anew knows nothing of our upload.
            StatusCode::NOT_FOUND => Err(Failure::Lost),
            _ => self.accept(response).await.map(|_| Arrival::Uploaded),
        }
    }

    /// Where to upload the blob; nowhere if it was mounted.
    async fn begin(&self, blob: &Blob) -> Result<Option<Url>, Failure> {
        let begin = self.url("blobs/uploads/");
        let post = |url| async move {
            self.send(Method::POST, &url, |it| it.header(CONTENT_LENGTH, 0)).await
        };
        if let Some(from) = &self.mount_from {
            let mut mount = begin.clone();
            mount.query_pairs_mut().extend_pairs([("mount", &blob.digest), ("from", from)]);
            let response = post(mount).await?;
            let is_mounted = response.status() == StatusCode::CREATED;
            match self.accept(response).await {
                Ok(_) if is_mounted => return Ok(None),
                // It has begun an upload instead.
                Ok(response) => return self.place(&response).map(Some),
                Err(failure) if failure.is_passing() => return Err(failure),
                // We may not read there, or it knows no mounts.
                Err(_) => {}
            }
        }
        let response = self.accept(post(begin).await?).await?;
        self.place(&response).map(Some)
    }

    /// Where the upload is to go.
    fn place(&self, response: &Response) -> Result<Url, Failure> {
        let place = response.headers().get(LOCATION).and_then(|it| it.to_str().ok());
        let place = place.and_then(|it| response.url().join(it).ok());
        let place =
            place.ok_or_else(|| Failure::Other("it names no place for the upload".to_string()))?;
        if place.scheme() == "https" || self.base.scheme() == "http" || is_loopback(&place) {
            return Ok(place);
        }
        Err(Failure::Other(format!("it sends the upload to `{place}`, in the clear")))
    }

    /// Sends the file in one request. A big file may take long, but never long without progress.
    async fn put_file(
        &self,
        url: Url,
        file: &File,
        size: u64,
        bar: &ProgressBar,
    ) -> Result<Response, Failure> {
        let local = |err: std::io::Error| Failure::Other(format!("cannot read the blob: {err}"));
        let mut watched = file;
        watched.seek(SeekFrom::Start(0)).map_err(local)?;
        // The copy shares its place in the file with `watched`: that is how far the upload is.
        let body = tokio::fs::File::from_std(file.try_clone().map_err(local)?);
        let request = self.request(Method::PUT, &url).header(CONTENT_LENGTH, size);
        let request = request.header(CONTENT_TYPE, "application/octet-stream").body(body);
        let mut answer = pin!(request.send());
        let (mut sent, mut since) = (0, Instant::now());
        let failure = loop {
            match timeout(TICK, answer.as_mut()).await {
                Ok(Ok(response)) => {
                    bar.inc(size.saturating_sub(sent));
                    return Ok(response);
                }
                Ok(Err(err)) => break Failure::of(&err, self.timeout),
                Err(_) => {}
            }
            let now = watched.stream_position().map_err(local)?;
            if now != sent {
                bar.inc(now.saturating_sub(sent));
                (sent, since) = (now, Instant::now());
            } else if since.elapsed() > self.timeout {
                break Failure::Silent(self.timeout);
            }
        };
        bar.dec(sent);
        Err(failure)
    }

    /// What `reference`, a tag or a digest, points at; `what` says in messages which that is.
    pub async fn digest_of(&self, reference: &str, what: &str) -> Result<Option<String>> {
        let step = format!("cannot look for {what}");
        self.persist(&step, || self.try_digest_of(reference)).await
    }

    async fn try_digest_of(&self, reference: &str) -> Result<Option<String>, Failure> {
        let url = self.url(&format!("manifests/{reference}"));
        let response = self.send(Method::HEAD, &url, |it| it.header(ACCEPT, MANIFESTS)).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = self.accept(response).await?;
        if let Some(digest) = content_digest(response.headers()) {
            return Ok(Some(digest));
        }
        let response = self.send(Method::GET, &url, |it| it.header(ACCEPT, MANIFESTS)).await?;
        let bytes = body::whole(self.accept(response).await?, self.timeout).await?;
        Ok(Some(sha256(&bytes)))
    }

    /// Puts `document` under `reference`, which is its digest or a tag.
    pub async fn put(&self, document: &Document, reference: &str) -> Result<()> {
        let step = if reference == document.digest {
            format!("cannot push {} ({})", document.what, document.digest)
        } else {
            format!("cannot move the tag `{reference}` to {}", document.what)
        };
        self.persist(&step, || self.try_put(document, reference)).await.map(drop)
    }

    /// The headers say what the registry has made of it.
    pub(super) async fn try_put(
        &self,
        document: &Document,
        reference: &str,
    ) -> Result<HeaderMap, Failure> {
        let url = self.url(&format!("manifests/{reference}"));
        let dress = |it: reqwest::RequestBuilder| {
            it.header(CONTENT_TYPE, &document.media_type).body(document.bytes.clone())
        };
        let response = self.accept(self.send(Method::PUT, &url, dress).await?).await?;
        match content_digest(response.headers()) {
            Some(digest) if digest != document.digest => {
                Err(Failure::Other(format!("the registry has made it into {digest}")))
            }
            _ => Ok(response.headers().clone()),
        }
    }
}

fn content_digest(headers: &HeaderMap) -> Option<String> {
    headers.get("docker-content-digest")?.to_str().ok().map(ToString::to_string)
}

/// The blob's file, whose bytes are what the layout says.
fn open_checked(blob: &Blob) -> Result<File> {
    let shown = blob.path.display();
    let mut file = File::open(&blob.path).with_context(|| format!("cannot read `{shown}`"))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("cannot read `{shown}`"))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    let digest = format!("sha256:{}", hex::encode(hash.finalize()));
    let size = file.stream_position().map_err(|err| anyhow!("cannot read `{shown}`: {err}"))?;
    ensure!(
        digest == blob.digest && size == blob.size,
        "cannot use `{shown}`: its bytes are {digest}, not what the layout says; build it again"
    );
    Ok(file)
}
