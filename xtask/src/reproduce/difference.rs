//! The first difference between an image and its rebuild: the deepest first, since a changed byte
//! in a file changes every digest above it.

use anyhow::{Context as _, Result, bail, ensure};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::Value;

use super::files;
use crate::oci::layer;
use crate::oci::layout::{self, Layout};
use crate::platform::Platform;

/// What was compared, and is the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Each has a manifest and a configuration.
    pub platforms: usize,
    /// Over all platforms.
    pub layers: usize,
    /// Files, folders and links, over all layers.
    pub files: usize,
    /// The size of all blobs.
    pub bytes: u64,
}

/// Compares what there is for `platforms`; a difference is an error, which names it.
pub fn compare(there: &Layout, rebuilt: &Layout, platforms: &[&Platform]) -> Result<Counts> {
    let mut counts = Counts { platforms: platforms.len(), ..Counts::default() };
    for platform in platforms {
        compare_platform(there, rebuilt, platform, &mut counts)
            .with_context(|| platform.to_string())?;
    }
    compare_indexes(there, rebuilt, platforms, &mut counts).context("the index")?;
    Ok(counts)
}

fn compare_platform(
    there: &Layout,
    rebuilt: &Layout,
    platform: &Platform,
    counts: &mut Counts,
) -> Result<()> {
    let (its_descriptor, its) = there.manifest(platform)?;
    let (our_descriptor, ours) = rebuilt.manifest(platform)?;
    for (at, (its, ours)) in its.layers().iter().zip(ours.layers()).enumerate() {
        let pair = (its.media_type(), there.read_blob(its)?, rebuilt.read_blob(ours)?);
        let name = || format!("layer {} of the image", at + 1);
        counts.files += compare_layers(pair).with_context(name)?;
        counts.bytes += its.size();
    }
    let (its_count, our_count) = (its.layers().len(), ours.layers().len());
    ensure!(its_count == our_count, "it has {its_count} layers, rebuilt {our_count}");
    counts.layers += its_count;
    let documents = [
        ("the configuration", its.config(), ours.config()),
        ("the manifest", &its_descriptor, &our_descriptor),
    ];
    for (name, its, ours) in documents {
        let pair = (there.read_blob(its)?, rebuilt.read_blob(ours)?);
        compare_documents(&pair.0, &pair.1).context(name)?;
        counts.bytes += its.size();
    }
    Ok(())
}

/// Gives the number of files, if all is the same.
fn compare_layers((media_type, its, ours): (&MediaType, Vec<u8>, Vec<u8>)) -> Result<usize> {
    let read = |blob| files::read(layer::unpacked(media_type, blob)?);
    let there = read(&its)?;
    if its == ours {
        return Ok(there.len());
    }
    match files::difference(&there, &read(&ours).context("as rebuilt")?) {
        Some(difference) => bail!("{difference}"),
        None => bail!("the same files are packed otherwise"),
    }
}

fn compare_indexes(
    there: &Layout,
    rebuilt: &Layout,
    platforms: &[&Platform],
    counts: &mut Counts,
) -> Result<()> {
    let (its, ours) = (there.index_descriptor()?, rebuilt.index_descriptor()?);
    let (its_bytes, our_bytes) = (there.read_blob(&its)?, rebuilt.read_blob(&ours)?);
    counts.bytes += its.size();
    let mut values = [its_bytes.as_slice(), our_bytes.as_slice()].map(serde_json::from_slice);
    // A rebuild for some platforms only has no others in its index.
    if let [Ok(value), Ok(_)] = &mut values
        && reduce(value, platforms)?
    {
        let [its, ours] = values.map(Result::unwrap_or_default);
        return same(&its, &ours);
    }
    compare_documents(&its_bytes, &our_bytes)
}

/// Leaves only `platforms` in an index; says whether there were others.
fn reduce(index: &mut Value, platforms: &[&Platform]) -> Result<bool> {
    let names: Vec<_> = platforms.iter().map(ToString::to_string).collect();
    let manifests = index.get_mut("manifests").and_then(Value::as_array_mut);
    let manifests = manifests.context("it has no manifests")?;
    let count = manifests.len();
    manifests.retain(|it| {
        let descriptor = serde_json::from_value::<Descriptor>(it.clone());
        descriptor.is_ok_and(|it| names.contains(&layout::platform(&it)))
    });
    Ok(manifests.len() < count)
}

fn compare_documents(its: &[u8], ours: &[u8]) -> Result<()> {
    if its == ours {
        return Ok(());
    }
    let its = serde_json::from_slice(its).context("it is no JSON")?;
    same(&its, &serde_json::from_slice(ours).context("as rebuilt it is no JSON")?)?;
    bail!("the same JSON is written otherwise")
}

fn same(its: &Value, ours: &Value) -> Result<()> {
    match first("", Some(its), Some(ours)) {
        Some(difference) => bail!("{difference}"),
        None => Ok(()),
    }
}

/// The first difference of two JSON values, by its path from the top.
fn first(path: &str, its: Option<&Value>, ours: Option<&Value>) -> Option<String> {
    match (its, ours) {
        (Some(Value::Object(its)), Some(Value::Object(ours))) => {
            let mut names: Vec<_> = its.keys().chain(ours.keys()).collect();
            names.sort_unstable();
            names.dedup();
            names
                .iter()
                .find_map(|name| first(&format!("{path}/{name}"), its.get(*name), ours.get(*name)))
        }
        (Some(Value::Array(its)), Some(Value::Array(ours))) => {
            let length = its.len().max(ours.len());
            (0..length).find_map(|at| first(&format!("{path}/{at}"), its.get(at), ours.get(at)))
        }
        _ if its == ours => None,
        _ => {
            let shown = |it: Option<&Value>| it.map_or("nothing".to_string(), Value::to_string);
            Some(format!("`{path}` is {}, rebuilt {}", shown(its), shown(ours)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn differ(its: Value, ours: Value, expected: &str) {
        let [its, ours] = [its, ours].map(|it| it.to_string().into_bytes());
        assert_eq!(compare_documents(&its, &ours).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_document_s_difference_is_named_by_its_path() {
        let labels = |value: &str| json!({ "config": { "Labels": { "a.b": value, "z": "1" } } });
        differ(labels("1"), labels("2"), "`/config/Labels/a.b` is \"1\", rebuilt \"2\"");
        differ(json!({ "a": [1, 2] }), json!({ "a": [1] }), "`/a/1` is 2, rebuilt nothing");
        differ(json!({}), json!({ "user": "0" }), "`/user` is nothing, rebuilt \"0\"");
        differ(json!([{}]), json!([[]]), "`/0` is {}, rebuilt []");
    }

    #[test]
    fn the_same_json_in_other_bytes_is_a_difference() {
        let error = compare_documents(b"{}", b"{ }").unwrap_err();
        assert_eq!(error.to_string(), "the same JSON is written otherwise");
        compare_documents(b"{ }", b"{ }").unwrap();
    }

    #[test]
    fn platforms_that_were_not_asked_for_do_not_count() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let manifest = |architecture: &str| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest,
                "size": 1,
                "platform": { "os": "linux", "architecture": architecture },
            })
        };
        let mut index = json!({ "manifests": [manifest("amd64"), manifest("s390x")] });
        let platforms = ["linux/s390x".parse().unwrap()];
        assert!(reduce(&mut index, &platforms).unwrap());
        assert_eq!(index, json!({ "manifests": [manifest("s390x")] }));
        assert!(!reduce(&mut index, &platforms).unwrap());
    }
}
