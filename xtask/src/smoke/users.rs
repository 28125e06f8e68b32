//! Who is who in the sandbox's user namespace.

use std::fs;

use anyhow::{Context, Result};
use nix::unistd::{getegid, geteuid};

/// What an image may expect: the numbers that Docker maps, too.
const ENOUGH: u64 = 65536;

/// Whether there is nobody but ourselves whom we could map: always, unless we are root, and even
/// then in a container that maps no more.
pub fn only_us() -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    !geteuid().is_root() || count(&read("uid_map")) < ENOUGH || read("setgroups").trim() == "deny"
}

/// Says who is who in the namespace of the process `pid`: everybody is himself, or, if there are
/// `only_us`, we are root.
pub fn map(pid: u32, only_us: bool) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::write(&path, text).with_context(|| format!("cannot write `{path}`"))
    };
    if only_us {
        write("setgroups", "deny")?;
        write("uid_map", &format!("0 {} 1", geteuid()))?;
        return write("gid_map", &format!("0 {} 1", getegid()));
    }
    for name in ["uid_map", "gid_map"] {
        let ours = format!("/proc/self/{name}");
        let ours = fs::read_to_string(&ours).with_context(|| format!("cannot read `{ours}`"))?;
        write(name, &identity(&ours))?;
    }
    Ok(())
}

/// The ranges of a map: the first number inside, and how many there are.
fn ranges(map: &str) -> impl Iterator<Item = (u64, u64)> {
    map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let (first, count) = (numbers.next()?.ok()?, numbers.nth(1)?.ok()?);
        Some((first, count))
    })
}

fn count(map: &str) -> u64 {
    ranges(map).map(|(_, count)| count).sum()
}

/// Maps everybody whom our own map, `ours`, has.
fn identity(ours: &str) -> String {
    let lines = ranges(ours).map(|(first, count)| format!("{first} {first} {count}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_of_our_own_namespace_is_mapped() {
        let machine = "         0          0 4294967295\n";
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(identity(machine), "0 0 4294967295");
        assert_eq!(identity(rootless), "0 0 1\n1 1 65536");
        assert_eq!((count(machine), count(rootless)), (4_294_967_295, 65537));
        assert_eq!(count("         0       1000          1\n"), 1);
    }
}
