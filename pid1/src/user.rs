//! Users and groups, looked up in the text of `/etc/passwd` and `/etc/group`.

/// What `/etc/passwd` says about a user.
#[derive(Debug, PartialEq, Eq)]
pub struct Account<'a> {
    pub name: &'a [u8],
    pub uid: u32,
    pub gid: u32,
    pub home: &'a [u8],
}

/// The first line of `passwd` that has `wanted` as its name or number.
pub fn find_user<'a>(passwd: &'a [u8], wanted: &[u8]) -> Option<Account<'a>> {
    let number = id(wanted);
    lines(passwd).filter_map(account).find(|it| it.name == wanted || Some(it.uid) == number)
}

/// The number of the group that has `wanted` as its name or number.
pub fn find_group(group: &[u8], wanted: &[u8]) -> Option<u32> {
    let named = |line: &&[u8]| field(line, 0) == Some(wanted);
    let listed = lines(group).find(named).and_then(|line| id(field(line, 2)?));
    listed.or_else(|| id(wanted))
}

/// The numbers of the groups that list `user` as a member.
pub fn groups_of<'a>(group: &'a [u8], user: &'a [u8]) -> impl Iterator<Item = u32> {
    let lists = move |line: &&[u8]| {
        field(line, 3).is_some_and(|it| it.split(|byte| *byte == b',').any(|name| name == user))
    };
    lines(group).filter(lists).filter_map(|line| id(field(line, 2)?))
}

/// A user's or group's number. The highest is no number: it stands for "unchanged" in system calls.
pub fn id(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    let number =
        text.iter().try_fold(0u32, |value, byte| value.checked_mul(10)?.checked_add(digit(*byte)?));
    number.filter(|number| *number != u32::MAX)
}

fn account(line: &[u8]) -> Option<Account<'_>> {
    Some(Account {
        name: field(line, 0)?,
        uid: id(field(line, 2)?)?,
        gid: id(field(line, 3)?)?,
        home: field(line, 5)?,
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

fn field(line: &[u8], index: usize) -> Option<&[u8]> {
    line.split(|byte| *byte == b':').nth(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        broken line\n\
        :x:5:5\n\
        app:x:1000:1001::/srv/app:\n\
        1000:x:7:7::/odd:\n\
        last:x:9:9::/l";
    const GROUP: &[u8] =
        b"root:x:0:\nstaff:x:50:app,root\nold:x:51:apple\nwheel:*:52:app\n33:x:34:";

    #[track_caller]
    fn check_user(wanted: &str, expected: Option<(u32, u32, &str)>) {
        let found = find_user(PASSWD, wanted.as_bytes());
        let expected = expected.map(|(uid, gid, home)| (uid, gid, home.as_bytes()));
        assert_eq!(found.map(|it| (it.uid, it.gid, it.home)), expected, "{wanted}");
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        check_user("app", Some((1000, 1001, "/srv/app")));
        check_user("0", Some((0, 0, "/root")));
        check_user("last", Some((9, 9, "/l")));
    }

    #[test]
    fn the_first_line_that_fits_wins() {
        check_user("1000", Some((1000, 1001, "/srv/app")));
    }

    #[test]
    fn who_is_not_listed_is_not_found() {
        for wanted in ["", "ap", "apple", "1001", "broken line", "4294967295"] {
            check_user(wanted, None);
        }
    }

    #[test]
    fn groups_are_found_by_name_and_number() {
        assert_eq!(find_group(GROUP, b"staff"), Some(50));
        assert_eq!(find_group(GROUP, b"7"), Some(7));
        assert_eq!(find_group(GROUP, b"33"), Some(34));
        assert_eq!(find_group(GROUP, b"nope"), None);
        assert_eq!(find_group(GROUP, b""), None);
    }

    #[test]
    fn memberships_are_whole_names() {
        assert_eq!(groups_of(GROUP, b"app").collect::<Vec<_>>(), [50, 52]);
        assert_eq!(groups_of(GROUP, b"appl").count(), 0);
    }

    #[test]
    fn ids_fit_in_32_bits_less_the_highest() {
        assert_eq!(id(b"4294967294"), Some(u32::MAX - 1));
        for text in ["", "4294967295", "4294967296", "-1", "+1", "1 ", "0x1"] {
            assert_eq!(id(text.as_bytes()), None, "{text}");
        }
    }

    const FILES: usize = 20_000;
    const LOOKUPS: usize = 10;
    const PIECES: [&str; 16] = [
        "app",
        "root",
        "1000",
        "0",
        "4294967295",
        "99999999999",
        "7",
        "+1",
        "é",
        "\0",
        " ",
        "x",
        ",",
        "app,",
        "",
        "/srv",
    ];

    /// A file of up to six lines, half of which have as many fields as they should.
    fn database(chance: &mut Chance, fields: usize) -> String {
        let mut lines = Vec::new();
        for _ in 0..chance.below(7) {
            let other = chance.below(9);
            let count = chance.pick(&[fields, other]);
            let line: Vec<_> = (0..count).map(|_| word(chance)).collect();
            lines.push(line.join(":"));
        }
        lines.join("\n")
    }

    /// What may stand in a field: mostly one piece, a small number in every other.
    fn word(chance: &mut Chance) -> String {
        match chance.below(8) {
            number @ 0..4 => number.to_string(),
            _ => chance.text(&PIECES, 2),
        }
    }

    /// A number as the standard library reads it, less what only that allows.
    fn by_std(text: &str) -> Option<u32> {
        let number = text.parse().ok().filter(|number| *number != u32::MAX);
        number.filter(|_| !text.starts_with('+'))
    }

    fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
        text.split('\n').map(|line| line.split(':').collect())
    }

    fn user_by_hand(passwd: &str, wanted: &str) -> Option<(String, u32, u32, String)> {
        for line in fields(passwd).filter(|line| line.len() >= 6) {
            let (Some(uid), Some(gid)) = (by_std(line[2]), by_std(line[3])) else { continue };
            if line[0] == wanted || by_std(wanted) == Some(uid) {
                return Some((line[0].to_owned(), uid, gid, line[5].to_owned()));
            }
        }
        None
    }

    fn group_by_hand(group: &str, wanted: &str) -> Option<u32> {
        let line = fields(group).find(|line| line[0] == wanted);
        let listed = line.and_then(|line| by_std(line.get(2)?));
        listed.or(by_std(wanted))
    }

    fn groups_by_hand(group: &str, user: &str) -> Vec<u32> {
        let lists = |line: &Vec<&str>| line.len() >= 4 && line[3].split(',').any(|it| it == user);
        fields(group).filter(lists).filter_map(|line| by_std(line[2])).collect()
    }

    /// Calls `look_up` with a file and what is wanted in it. Tells how often it was found.
    fn in_all_files(fields: usize, look_up: impl Fn(&str, &str) -> bool) -> usize {
        let (mut chance, mut found) = (Chance::new(), 0);
        for _ in 0..FILES {
            let file = database(&mut chance, fields);
            found += (0..LOOKUPS).filter(|_| look_up(&file, &word(&mut chance))).count();
        }
        found
    }

    #[test]
    fn two_hundred_thousand_lookups_find_the_users_found_by_hand() {
        let found = in_all_files(7, |passwd, wanted| {
            let user = find_user(passwd.as_bytes(), wanted.as_bytes()).map(|it| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                (text(it.name), it.uid, it.gid, text(it.home))
            });
            assert_eq!(user, user_by_hand(passwd, wanted), "{passwd:?} {wanted:?}");
            user.is_some()
        });
        assert!(found > FILES / 2, "{found}");
    }

    #[test]
    fn two_hundred_thousand_lookups_find_the_groups_found_by_hand() {
        let found = in_all_files(4, |group, wanted| {
            let number = find_group(group.as_bytes(), wanted.as_bytes());
            assert_eq!(number, group_by_hand(group, wanted), "{group:?} {wanted:?}");
            let groups: Vec<_> = groups_of(group.as_bytes(), wanted.as_bytes()).collect();
            assert_eq!(groups, groups_by_hand(group, wanted), "{group:?} {wanted:?}");
            number.is_some() && !groups.is_empty()
        });
        assert!(found > FILES / 4, "{found}");
    }
}
