//! Bodies of answers, read within bounds: what sends them may never end, or never begin.

use std::time::Duration;

use reqwest::Response;
use tokio::time::timeout;

use super::failure::Failure;

/// More than any manifest has, or any token: registries take manifests of 4 MiB at most.
pub const LARGEST_DOCUMENT: usize = 4 << 20;

/// The body, which is small: it comes whole within `limit`, or it is a failure.
pub async fn whole(response: Response, limit: Duration) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let reading = each_chunk(response, limit, |chunk| {
        if bytes.len() + chunk.len() > LARGEST_DOCUMENT {
            return Err(Failure::Other("its answer does not end".to_string()));
        }
        bytes.extend_from_slice(chunk);
        Ok(())
    });
    // A byte now and then would not be silence, and no end either.
    timeout(limit, reading).await.map_err(|_| Failure::Silent(limit))??;
    Ok(bytes)
}

/// Hands the body to `each` as it comes. A big one may take long, but never longer than `silence`
/// without progress.
pub async fn each_chunk(
    mut response: Response,
    silence: Duration,
    mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        let chunk = timeout(silence, response.chunk()).await;
        let chunk = chunk.map_err(|_| Failure::Silent(silence))?;
        match chunk.map_err(|err| Failure::of(&err, silence))? {
            Some(chunk) => each(&chunk)?,
            None => return Ok(()),
        }
    }
}
