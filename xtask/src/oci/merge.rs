//! The configuration of an image on a base: the base's own, with ours put on it as the
//! instructions of a Dockerfile would put it.

use serde_json::{Map, Value};

/// Puts `ours` on `base`. Whatever we know nothing of stays as it is.
pub fn merge(mut base: Value, mut ours: Value) -> Value {
    for list in ["/rootfs/diff_ids", "/history"] {
        let lower = base.pointer(list).and_then(Value::as_array).cloned().unwrap_or_default();
        if let Some(upper) = ours.pointer_mut(list).and_then(Value::as_array_mut) {
            upper.splice(0..0, lower);
        }
    }
    let config = base.get_mut("config").map_or(Value::Null, Value::take);
    let config = merged_config(config, ours["config"].take());
    for name in ["created", "rootfs", "history"] {
        base[name] = ours[name].take();
    }
    base["config"] = config;
    base
}

fn merged_config(base: Value, ours: Value) -> Value {
    let (mut config, ours) = (object(base), object(ours));
    // With an entrypoint the base's arguments go: they were another program's.
    config.remove("Cmd");
    for (name, value) in ours {
        let value = match name.as_str() {
            "Env" => environment(config.remove("Env"), value),
            "Labels" => {
                let mut labels = object(config.remove("Labels").unwrap_or_default());
                labels.extend(object(value));
                Value::Object(labels)
            }
            _ => value,
        };
        config.insert(name, value);
    }
    Value::Object(config)
}

/// A variable that is there already keeps its place.
fn environment(base: Option<Value>, ours: Value) -> Value {
    let list = |value| if let Value::Array(list) = value { list } else { Vec::new() };
    let name = |variable: &Value| {
        let text = variable.as_str().unwrap_or_default();
        text.split('=').next().unwrap_or_default().to_string()
    };
    let mut variables = list(base.unwrap_or_default());
    for variable in list(ours) {
        match variables.iter_mut().find(|it| name(it) == name(&variable)) {
            Some(there) => *there = variable,
            None => variables.push(variable),
        }
    }
    Value::Array(variables)
}

/// Docker writes `null` where there is nothing.
fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_changes_stays() {
        let base = json!({
            "architecture": "arm64", "variant": "v8", "os": "linux", "created": "then",
            "author": "somebody", "rootfs": { "type": "layers", "diff_ids": ["a", "b"] },
            "history": [{ "created_by": "theirs" }],
            "config": {
                "Cmd": ["bash"], "Entrypoint": ["/theirs"], "User": "nonroot", "StopSignal": "INT",
                "WorkingDir": "/home", "Env": ["PATH=/bin", "A=1", "B=2"], "Volumes": { "/v": {} },
                "Labels": { "theirs": "1", "both": "theirs" }, "Healthcheck": { "Test": ["x"] },
            },
        });
        let ours = json!({
            "architecture": "arm64", "os": "linux", "created": "now",
            "rootfs": { "type": "layers", "diff_ids": ["c"] }, "history": [{ "created_by": "ours" }],
            "config": {
                "Entrypoint": ["/sbin/pid1"], "Env": ["A=3", "C=4"], "Labels": { "both": "ours" },
            },
        });
        let expected = json!({
            "architecture": "arm64", "variant": "v8", "os": "linux", "created": "now",
            "author": "somebody", "rootfs": { "type": "layers", "diff_ids": ["a", "b", "c"] },
            "history": [{ "created_by": "theirs" }, { "created_by": "ours" }],
            "config": {
                "Entrypoint": ["/sbin/pid1"], "User": "nonroot", "StopSignal": "INT",
                "WorkingDir": "/home", "Env": ["PATH=/bin", "A=3", "B=2", "C=4"],
                "Volumes": { "/v": {} }, "Labels": { "theirs": "1", "both": "ours" },
                "Healthcheck": { "Test": ["x"] },
            },
        });
        assert_eq!(merge(base, ours), expected);
    }

    #[test]
    fn a_base_that_says_next_to_nothing_will_do() {
        let base = json!({ "rootfs": { "diff_ids": ["a"] }, "config": null });
        let ours = json!({
            "created": "now", "rootfs": { "diff_ids": ["b"] }, "history": [],
            "config": { "Entrypoint": ["/sbin/pid1"], "Cmd": ["sh"] },
        });
        let expected = json!({
            "created": "now", "rootfs": { "diff_ids": ["a", "b"] }, "history": [],
            "config": { "Entrypoint": ["/sbin/pid1"], "Cmd": ["sh"] },
        });
        assert_eq!(merge(base, ours), expected);
    }
}
