//! Downloads: what is known by its digest is checked against it before anybody sees it.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use indicatif::ProgressBar;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, Response, StatusCode, Url};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::time::timeout;

use super::failure::Failure;
use super::push::MANIFESTS;
use super::{Blob, Document, Registry, body};
use crate::files::PLAIN;
use crate::oci::layout::sha256;

impl Registry {
    /// The manifest or index at `reference`, a tag or a digest.
    pub async fn document(&self, reference: &str, what: &str) -> Result<Document> {
        let step = format!("cannot pull {what}");
        let url = self.url(&format!("manifests/{reference}"));
        self.persist(&step, || async {
            let response = self.send(Method::GET, &url, |it| it.header(ACCEPT, MANIFESTS)).await?;
            let response = self.found(response, reference).await?;
            let media_type = response.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
            let media_type = media_type.unwrap_or_default().to_string();
            let bytes = body::whole(response, self.timeout).await?;
            let digest = sha256(&bytes);
            if reference.starts_with("sha256:") && digest != reference {
                return Err(changed(&digest, reference));
            }
            Ok(Document { digest, media_type, bytes, what: what.to_string() })
        })
        .await
    }

    /// Downloads the blob to its path, whole or not at all.
    pub async fn download(&self, blob: &Blob, bar: &ProgressBar) -> Result<()> {
        let step = format!("cannot pull {} ({})", blob.what, blob.digest);
        self.persist(&step, || self.try_download(blob, bar)).await
    }

    async fn try_download(&self, blob: &Blob, bar: &ProgressBar) -> Result<(), Failure> {
        let local = |err: std::io::Error| {
            Failure::Other(format!("cannot write `{}`: {err}", blob.path.display()))
        };
        let folder = blob.path.parent().expect("a blob lies in a folder");
        fs::create_dir_all(folder).map_err(local)?;
        let mut half = NamedTempFile::with_prefix_in(".unfinished-", folder).map_err(local)?;
        let url = self.url(&format!("blobs/{}", blob.digest));
        let response = self.found(self.start(&url).await?, &blob.digest).await?;
        let (mut hash, mut size) = (Sha256::new(), 0);
        let received = body::each_chunk(response, self.timeout, |chunk| {
            size += chunk.len() as u64;
            if size > blob.size {
                return Err(Failure::Other(format!("it has more than its {} bytes", blob.size)));
            }
            hash.update(chunk);
            bar.inc(chunk.len() as u64);
            half.write_all(chunk).map_err(local)
        });
        if let Err(failure) = received.await {
            bar.dec(size);
            return Err(failure);
        }
        let digest = format!("sha256:{}", hex::encode(hash.finalize()));
        if digest != blob.digest || size != blob.size {
            return Err(changed(&format!("{digest} of {size} bytes"), &blob.digest));
        }
        // Temporary files are their owner's alone; what lies in a layout is everybody's to read.
        half.as_file().set_permissions(Permissions::from_mode(PLAIN)).map_err(local)?;
        half.persist(&blob.path).map_err(|err| local(err.error)).map(drop)
    }

    /// Asks for something big: what takes longest comes after the answer's head.
    async fn start(&self, url: &Url) -> Result<Response, Failure> {
        let once = || async {
            let answer = timeout(self.timeout, self.request(Method::GET, url).send()).await;
            let answer = answer.map_err(|_| Failure::Silent(self.timeout))?;
            answer.map_err(|err| Failure::of(&err, self.timeout))
        };
        let response = once().await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        self.authorise(&response).await?;
        once().await
    }

    /// The response, if it is a success.
    async fn found(&self, response: Response, reference: &str) -> Result<Response, Failure> {
        if response.status() == StatusCode::NOT_FOUND {
            let repository = &self.repository;
            return Err(Failure::Other(format!("there is no `{reference}` in `{repository}`")));
        }
        self.accept(response).await
    }
}

fn changed(found: &str, expected: &str) -> Failure {
    Failure::Other(format!(
        "its bytes are {found}, not {expected}: the registry, or something on the way there, has \
         changed them"
    ))
}
