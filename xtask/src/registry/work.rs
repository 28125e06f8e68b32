//! Many requests at once, and an end to all of them when the user wants to leave.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::process::Interrupt;

/// How many requests are under way at once.
const PARALLEL: usize = 8;

/// How often we look whether the user wants to leave.
const POLL: Duration = Duration::from_millis(50);

/// Does `work` for each of `items`, some at a time; the first failure ends the others.
pub async fn each<I, T, F>(items: Vec<I>, work: impl Fn(I) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let mut running = JoinSet::new();
    let mut done = Vec::new();
    let mut items = items.into_iter();
    loop {
        while running.len() < PARALLEL
            && let Some(item) = items.next()
        {
            running.spawn(work(item));
        }
        match running.join_next().await {
            Some(finished) => done.push(finished.context("a part of the work broke down")??),
            None => return Ok(done),
        }
    }
}

/// Does `work`, unless the user interrupts: then it is dropped where it stands.
pub async fn unless<T>(interrupt: &Interrupt, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    while !interrupt.is_set() {
        if let Ok(done) = timeout(POLL, work.as_mut()).await {
            return done;
        }
    }
    bail!("interrupted")
}
