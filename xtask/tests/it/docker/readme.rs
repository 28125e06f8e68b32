//! What the README has people type at docker.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::built::succeeds;

#[test]
fn the_compose_file_is_one() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/examples/server.compose.yaml");
    let mut compose = Command::new("docker");
    compose.args(["compose", "--file"]).arg(file).args(["config", "--format", "json"]);
    let config: serde_json::Value = serde_json::from_str(&succeeds(&mut compose).stdout).unwrap();
    let server = &config["services"]["server"];
    assert_eq!(server["command"], serde_json::json!(["/server"]));
    assert_eq!(server["environment"]["PID1_KILL_AFTER"], "8");
}

mod skopeo {
    use super::*;
    use crate::built::folder;

    /// An image in docker; it goes with the test.
    struct Loaded(String);

    impl Drop for Loaded {
        fn drop(&mut self) {
            let _ = Command::new("docker").args(["rmi", "--force", &self.0]).output();
        }
    }

    #[test]
    fn skopeo_loads_a_layout_into_docker() {
        let image = Loaded(format!("pid1-skopeo-{}:docker-testing", std::process::id()));
        let layout = folder().join("dist/oci/docker-testing").display().to_string();
        let words = ["copy", "--quiet", &format!("oci:{layout}")];
        let mut copy = Command::new("skopeo");
        copy.args(words).arg(format!("docker-archive:/dev/stdout:{}", image.0));
        let mut skopeo = copy.stdout(Stdio::piped()).spawn().unwrap();
        let mut load = Command::new("docker");
        succeeds(load.arg("load").stdin(skopeo.stdout.take().unwrap()));
        assert!(skopeo.wait().unwrap().success());
        let said = succeeds(Command::new("docker").args([
            "run",
            "--rm",
            "--network=none",
            &image.0,
            "ps",
        ]))
        .stdout;
        let lines: Vec<_> = said.lines().collect();
        assert!(lines.iter().any(|it| it.contains("/sbin/pid1")), "{said}");
    }
}
