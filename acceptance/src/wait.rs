//! Waiting for what other processes do: asks again and again, with a deadline and with words for what was not reached.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

const PAUSE: Duration = Duration::from_millis(20);
const GET_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks until there is an answer.
///
/// # Errors
/// The first error of `ask`, or that [`PATIENCE`] passed without an answer.
pub async fn until<T>(what: &str, ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    within(PATIENCE, what, ask).await
}

/// Asks until there is an answer, with a patience of one's own.
///
/// # Errors
/// As [`until`].
pub async fn within<T>(
    patience: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if started.elapsed() >= patience {
            bail!("waited {patience:?} in vain: {what}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `GET http://address/path`: the status and the body; none if nobody answers.
pub async fn get(address: &str, path: &str) -> Option<(u16, String)> {
    tokio::time::timeout(GET_TIMEOUT, try_get(address, path)).await.ok()?.ok()
}

async fn try_get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("no answer") };
    let status = head.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok((status, body.to_owned()))
}
