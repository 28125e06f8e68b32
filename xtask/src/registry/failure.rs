//! What can go wrong with one request, told so that it helps.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::{CONNECT_LIMIT, body};

/// The most that is shown of a registry's own words.
const DETAIL_LENGTH: usize = 200;

/// Why a request failed. Its text follows on a colon and says the remedy where there is one.
#[derive(Debug)]
pub enum Failure {
    /// No connection can be made.
    Unreachable(String),
    /// Whoever is there does not speak TLS.
    NotTls,
    /// The connection ended before the answer did.
    Dropped(String),
    /// Nothing came, or nothing was taken, for this long.
    Silent(Duration),
    /// An answer that is no success.
    Answer { status: StatusCode, detail: String, after: Option<Duration> },
    /// The upload is forgotten, or no longer ours: it begins again.
    Lost,
    /// What no second try can mend.
    Other(String),
}

impl Failure {
    /// What became of a request that got no answer.
    pub fn of(err: &reqwest::Error, timeout: Duration) -> Failure {
        if err.is_timeout() {
            let limit = if err.is_connect() { timeout.min(CONNECT_LIMIT) } else { timeout };
            return Failure::Silent(limit);
        }
        if let Some(tls) = causes(err).find_map(tls_error) {
            return of_tls(tls);
        }
        if err.is_builder() || err.is_redirect() {
            return Failure::Other(innermost(err));
        }
        if !err.is_connect() {
            return Failure::Dropped(innermost(err));
        }
        let kind = causes(err).find_map(|it| it.downcast_ref::<io::Error>()).map(io::Error::kind);
        let by_name = causes(err).any(|it| it.to_string().contains("dns error"));
        match kind {
            _ if by_name => Failure::Unreachable(
                "its name has no address; is the name right, and the network up?".to_string(),
            ),
            Some(io::ErrorKind::ConnectionRefused) => {
                Failure::Unreachable("connection refused; does a registry run there?".to_string())
            }
            Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
                Failure::Unreachable("no way leads there; is the network up?".to_string())
            }
            Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                Failure::Dropped(innermost(err))
            }
            _ => Failure::Unreachable(innermost(err)),
        }
    }

    /// What an answer that is no success says.
    pub async fn answer(response: Response, limit: Duration) -> Failure {
        let status = response.status();
        let after = retry_after(response.headers(), Timestamp::now());
        // Without its words the answer still has its number.
        let detail = body::whole(response, limit).await.map(|it| detail(&it)).unwrap_or_default();
        Failure::Answer { status, detail, after }
    }

    /// Whether the same request may succeed when it is made again.
    pub fn is_passing(&self) -> bool {
        match self {
            Failure::Dropped(_) | Failure::Silent(_) | Failure::Lost => true,
            Failure::Answer { status, .. } => {
                let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                status.is_server_error() || again.contains(status)
            }
            Failure::Unreachable(_) | Failure::NotTls | Failure::Other(_) => false,
        }
    }

    /// How long the registry wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Failure::Answer { after, .. } = self { *after } else { None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable(why) | Failure::Other(why) => write!(out, "{why}"),
            Failure::NotTls => {
                write!(out, "it does not speak TLS; if that is meant to be, give `--plain-http`")
            }
            Failure::Dropped(why) => write!(out, "the connection was dropped ({why})"),
            Failure::Silent(limit) => write!(out, "no answer within {} s", limit.as_secs_f64()),
            Failure::Lost => write!(out, "the registry has forgotten the upload"),
            Failure::Answer { status, detail, .. } => {
                write!(out, "it answers {status}")?;
                if !detail.is_empty() {
                    write!(out, " ({detail})")?;
                }
                match *status {
                    StatusCode::NOT_FOUND => write!(out, "; does the repository exist?"),
                    StatusCode::TOO_MANY_REQUESTS => write!(out, "; wait, then try again"),
                    it if it.is_server_error() => write!(out, "; its log may say why"),
                    _ => Ok(()),
                }
            }
        }
    }
}

fn of_tls(err: &rustls::Error) -> Failure {
    use rustls::{CertificateError, Error};
    match err {
        Error::InvalidMessage(_) => Failure::NotTls,
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => Failure::Other(
            "its certificate is signed by an authority unknown here; if you trust it, give \
             `--ca FILE`"
                .to_string(),
        ),
        other => Failure::Other(format!("TLS fails: {other}")),
    }
}

/// An error with all that caused it.
fn causes<'a>(err: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(err), |&err| err.source())
}

/// An `io::Error` does not count what it wraps among its causes: it is looked into.
fn tls_error<'a>(mut err: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    while let Some(wrapped) = err.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        err = wrapped;
    }
    err.downcast_ref()
}

fn innermost(err: &(dyn Error + 'static)) -> String {
    causes(err).last().map(ToString::to_string).unwrap_or_default()
}

/// The first error of a registry's answer, on one line.
fn detail(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let first = &body["errors"][0];
    let words = [&first["code"], &first["message"]].into_iter().filter_map(|it| it.as_str());
    let line = words.filter(|it| !it.is_empty()).collect::<Vec<_>>().join(": ");
    line.chars().filter(|it| !it.is_control()).take(DETAIL_LENGTH).collect()
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use reqwest::Client;
    use tokio::runtime::Runtime;

    use super::*;

    #[track_caller]
    fn check(value: &str, expected: Option<u64>) {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        let now = "1994-11-06T08:49:37Z".parse().unwrap();
        assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{value}");
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        check("7", Some(7));
        check("Sun, 06 Nov 1994 08:50:07 GMT", Some(30));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("soon", None);
        check("-1", None);
    }

    #[test]
    fn a_connection_that_does_not_come_about_is_told_by_its_own_limit() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Whoever connects there gets no answer to the greeting.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::builder().no_proxy().tls_certs_only([]);
        let client = client.connect_timeout(Duration::from_millis(50)).build().unwrap();
        let url = format!("https://{}/", silent.local_addr().unwrap());
        let answer = Runtime::new().unwrap().block_on(client.get(url).send());
        let failure = Failure::of(&answer.unwrap_err(), Duration::from_mins(1));
        assert_eq!(failure.to_string(), "no answer within 15 s");
    }

    #[test]
    fn a_registry_is_quoted_on_one_short_line() {
        let body = br#"{"errors":[{"code":"UNKNOWN","message":"disk\nfull"},{"code":"B"}]}"#;
        assert_eq!(detail(body), "UNKNOWN: diskfull");
        assert_eq!(detail(b"<html>"), "");
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "x".repeat(5000));
        assert_eq!(detail(long.as_bytes()).len(), DETAIL_LENGTH);
    }
}
