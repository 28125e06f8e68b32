//! What shows on the image itself, without running it.

use oci_spec::image::ImageConfiguration;

use super::rootfs::Rootfs;
use crate::spec::ENTRYPOINT;

/// How the files of users say that somebody has no password, or that it is elsewhere.
const NO_PASSWORD: [&str; 6] = ["", "x", "*", "!", "!!", "!*"];

/// Each look at an image, and what is wrong there, if something is.
pub fn at(rootfs: &Rootfs) -> Vec<Option<String>> {
    vec![
        entrypoint_failure(&rootfs.config),
        password_failure("/etc/passwd", &rootfs.read_or_empty("etc/passwd")),
        password_failure("/etc/shadow", &rootfs.read_or_empty("etc/shadow")),
        clock_failure(&rootfs.config, &rootfs.read_or_empty("etc/localtime")),
    ]
}

/// What is wrong with the entrypoint: in shell form it would be run by a shell, which hands on
/// neither arguments nor signals.
fn entrypoint_failure(config: &ImageConfiguration) -> Option<String> {
    let entrypoint = config.config().as_ref().and_then(|it| it.entrypoint().clone());
    let entrypoint = entrypoint.unwrap_or_default();
    let is_right = entrypoint == ENTRYPOINT;
    (!is_right).then(|| {
        format!(
            "its entrypoint is {entrypoint:?}\n      it should be [\"/sbin/pid1\"], in exec form"
        )
    })
}

/// A password in an image is everybody's.
fn password_failure(file: &str, table: &str) -> Option<String> {
    let field = |line: &&str, index| line.split(':').nth(index).unwrap_or_default().to_string();
    let mut with = table.lines().filter(|line| !NO_PASSWORD.contains(&field(line, 1).as_str()));
    with.next().map(|line| format!("its {file} has a password for `{}`", field(&line, 0)))
}

/// Logs that are compared need one clock: UTC, unless the user says otherwise.
fn clock_failure(config: &ImageConfiguration, localtime: &str) -> Option<String> {
    let variables = config.config().as_ref().and_then(|it| it.env().clone()).unwrap_or_default();
    let zone = variables.iter().find_map(|it| it.strip_prefix("TZ="));
    let says_utc = |zone: &str| ["", "UTC", "Etc/UTC", "UTC0"].contains(&zone);
    // Such a file ends with its rule (<https://www.rfc-editor.org/rfc/rfc9636#section-3.3>).
    let is_utc = localtime.is_empty() || localtime.ends_with("\nUTC0\n");
    let is_right = zone.is_none_or(says_utc) && is_utc;
    (!is_right).then(|| "its clock is not UTC: look at TZ and /etc/localtime".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(config: &str) -> ImageConfiguration {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},
                "config":{config}}}"#
        );
        ImageConfiguration::from_reader(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_entrypoint_in_shell_form_is_wrong() {
        let failure = |entrypoint: &str| {
            entrypoint_failure(&configuration(&format!(r#"{{"Entrypoint":{entrypoint}}}"#)))
        };
        assert_eq!(failure(r#"["/sbin/pid1"]"#), None);
        assert!(failure(r#"["/bin/sh","-c","/sbin/pid1"]"#).is_some());
        assert!(failure("[]").is_some());
    }

    #[test]
    fn a_password_is_wrong_and_whose_it_is_is_said() {
        let failure = |table: &str| password_failure("/etc/shadow", table);
        assert_eq!(failure("root:*:1::::::\nbin:!:1::::::\nx:x:1:1:::\nempty::1\n"), None);
        assert_eq!(failure(""), None);
        let said = failure("root:*:1\nweb:$6$salt$hash:1\n").unwrap();
        assert_eq!(said, "its /etc/shadow has a password for `web`");
    }

    #[test]
    fn another_clock_than_utc_is_wrong() {
        let failure = |env: &str, localtime: &str| {
            clock_failure(&configuration(&format!(r#"{{"Env":[{env}]}}"#)), localtime)
        };
        assert_eq!(failure("", ""), None);
        assert_eq!(failure(r#""TZ=UTC""#, "TZif2\0\nUTC0\n"), None);
        assert!(failure(r#""TZ=Europe/Berlin""#, "").is_some());
        assert!(failure("", "TZif2\0\nCET-1CEST,M3.5.0,M10.5.0/3\n").is_some());
    }
}
