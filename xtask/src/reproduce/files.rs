//! The files of a layer, and the first difference between those of two.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use tar::{Archive, Entry, EntryType};

/// A file, folder or link, with all that a layer says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    path: String,
    kind: EntryType,
    mode: u32,
    /// User and group, by number and by name.
    owner: (u64, u64, String),
    /// In seconds since 1970.
    time: u64,
    link: String,
    /// What the pax headers say, such as extended attributes.
    extensions: Vec<(String, String)>,
    bytes: Vec<u8>,
}

/// The files of a layer that is not compressed, in their order.
pub fn read(layer: impl Read) -> Result<Vec<File>> {
    let mut archive = Archive::new(layer);
    let entries = archive.entries().context("cannot read the layer")?;
    entries.map(|entry| File::read(entry?).context("cannot read the layer")).collect()
}

impl File {
    fn read(mut entry: Entry<impl Read>) -> Result<File> {
        let mut extensions = Vec::new();
        if let Some(pax) = entry.pax_extensions()? {
            for extension in pax {
                let extension = extension?;
                let value = String::from_utf8_lossy(extension.value_bytes()).into_owned();
                extensions.push((extension.key()?.to_string(), value));
            }
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        let header = entry.header();
        let text = |bytes: Option<&[u8]>| {
            bytes.map_or_else(String::new, |it| String::from_utf8_lossy(it).into_owned())
        };
        let names = [header.username_bytes(), header.groupname_bytes()].map(text).join(":");
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        Ok(File {
            path: format!("/{}", path.trim_start_matches("./").trim_end_matches('/')),
            kind: header.entry_type(),
            mode: header.mode()?,
            owner: (header.uid()?, header.gid()?, names),
            time: header.mtime()?,
            link: text(entry.link_name_bytes().as_deref()),
            extensions,
            bytes,
        })
    }

    /// What of it is not as in `rebuilt`.
    fn difference(&self, rebuilt: &File) -> Option<String> {
        let (its, ours) = (self, rebuilt);
        let owner = |(user, group, names): &(u64, u64, String)| match names.as_str() {
            ":" => format!("{user}:{group}"),
            names => format!("{user}:{group} ({names})"),
        };
        let time = |seconds: u64| {
            let time = i64::try_from(seconds).ok().map(Timestamp::from_second);
            time.and_then(Result::ok).map_or_else(|| seconds.to_string(), |it| it.to_string())
        };
        let pairs = [
            ("type", format!("{:?}", its.kind), format!("{:?}", ours.kind)),
            ("mode", format!("{:04o}", its.mode), format!("{:04o}", ours.mode)),
            ("owner", owner(&its.owner), owner(&ours.owner)),
            ("time", time(its.time), time(ours.time)),
            ("target", its.link.clone(), ours.link.clone()),
            ("header", format!("{:?}", its.extensions), format!("{:?}", ours.extensions)),
        ];
        let differs = pairs.into_iter().find(|(_, its, ours)| its != ours);
        differs
            .map(|(what, its, ours)| format!("its {what} is {its}, rebuilt {ours}"))
            .or_else(|| bytes(&its.bytes, &ours.bytes))
    }
}

/// The first difference of two files' bytes.
pub fn bytes(its: &[u8], ours: &[u8]) -> Option<String> {
    let same = its.iter().zip(ours).take_while(|(its, ours)| its == ours).count();
    let sizes = format!("it has {} bytes, rebuilt {}", its.len(), ours.len());
    match (its.get(same), ours.get(same)) {
        (None, None) => None,
        (Some(it), Some(our)) => {
            Some(format!("the byte at offset {same} is {it:#04x}, rebuilt {our:#04x}; {sizes}"))
        }
        _ => Some(format!("{sizes}; they are the same up to there")),
    }
}

/// The first difference, in the order of the files that there are.
pub fn difference(there: &[File], rebuilt: &[File]) -> Option<String> {
    let by_path = |files: &[File]| -> BTreeMap<String, File> {
        files.iter().map(|it| (it.path.clone(), it.clone())).collect()
    };
    let (its, ours) = (by_path(there), by_path(rebuilt));
    for file in there {
        let difference = match ours.get(&file.path) {
            // Of several of one name, the last is what counts.
            Some(our) => its[&file.path].difference(our),
            None => Some("it is not in the rebuild".to_string()),
        };
        if let Some(difference) = difference {
            return Some(format!("`{}`: {difference}", file.path));
        }
    }
    let missing = rebuilt.iter().find(|it| !its.contains_key(&it.path));
    missing.map(|it| format!("`{}`: it is in the rebuild only", it.path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, Header};

    /// Two files in a layer, the second as `change` makes it.
    fn layer(change: impl FnOnce(&mut Header, &mut Vec<u8>)) -> Vec<File> {
        let mut header = Header::new_ustar();
        header.set_mode(0o644);
        header.set_mtime(1_767_323_045);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(4);
        let mut bytes = b"text".to_vec();
        let mut builder = Builder::new(Vec::new());
        builder.append_data(&mut header, "etc/first", bytes.as_slice()).unwrap();
        change(&mut header, &mut bytes);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, "etc/second", bytes.as_slice()).unwrap();
        read(builder.into_inner().unwrap().as_slice()).unwrap()
    }

    #[track_caller]
    fn differs(change: impl FnOnce(&mut Header, &mut Vec<u8>), expected: &str) {
        let found = difference(&layer(change), &layer(|_, _| {}));
        assert_eq!(found.unwrap(), format!("`/etc/second`: {expected}"));
    }

    #[test]
    fn what_differs_is_said() {
        assert_eq!(difference(&layer(|_, _| {}), &layer(|_, _| {})), None);
        differs(
            |_, bytes| bytes[2] = b'X',
            "the byte at offset 2 is 0x58, rebuilt 0x78; it has 4 bytes, rebuilt 4",
        );
        let expected = "it has 3 bytes, rebuilt 4; they are the same up to there";
        differs(|_, bytes| bytes.truncate(3), expected);
        differs(|header, _| header.set_mode(0o755), "its mode is 0755, rebuilt 0644");
        differs(|header, _| header.set_uid(7), "its owner is 7:0, rebuilt 0:0");
        differs(
            |header, _| header.set_username("me").unwrap(),
            "its owner is 0:0 (me:), rebuilt 0:0",
        );
        differs(
            |header, _| header.set_mtime(0),
            "its time is 1970-01-01T00:00:00Z, rebuilt 2026-01-02T03:04:05Z",
        );
        let fifo = |header: &mut Header, bytes: &mut Vec<u8>| {
            header.set_entry_type(EntryType::Fifo);
            bytes.clear();
        };
        differs(fifo, "its type is Fifo, rebuilt Regular");
    }

    #[test]
    fn a_file_that_only_one_has_is_named() {
        let (both, one) = (layer(|_, _| {}), &layer(|_, _| {})[..1]);
        let found = |there, rebuilt| difference(there, rebuilt).unwrap();
        assert_eq!(found(&both, one), "`/etc/second`: it is not in the rebuild");
        assert_eq!(found(one, &both), "`/etc/second`: it is in the rebuild only");
    }
}
