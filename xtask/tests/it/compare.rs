//! `cargo xtask compare`: what the table says of pid1 is so.

use crate::built::{done, xtask};

#[test]
fn pid1_does_all_that_the_table_lists() {
    let done = done(xtask().args(["compare", "--own"]));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let rows: Vec<_> = done.stdout.lines().skip(2).collect();
    assert!(rows.len() >= 20, "{}", done.stdout);
    for row in rows {
        assert!(row.ends_with("| yes |"), "{row}");
    }
}
