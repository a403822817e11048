//! Ends connections of peers that neither speak nor listen.
//!
//! Two waits have no end by themselves, and each of them would keep a place and memory for as long as a peer likes:
//!
//! - Until it is clear which version of HTTP a connection speaks, no request has begun, and so no time limit of one runs.
//!   The wait is over with the first byte that is not of the HTTP/2 preface, or with the whole preface.
//! - A peer that reads nothing lets its answer wait in memory. What counts is that some bytes are taken, not how many; a
//!   connection on which there is nothing to write may stay silent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What every HTTP/2 connection begins with, and none of HTTP/1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that fails with [`io::ErrorKind::TimedOut`] when its peer is silent at first, or later takes no bytes.
pub(super) struct Patience<C> {
    inner: C,
    /// None once the version is clear.
    opening: Option<Opening>,
    write_timeout: Duration,
    /// Runs while a write waits.
    writing: Option<Pin<Box<Sleep>>>,
}

struct Opening {
    deadline: Pin<Box<Sleep>>,
    /// Bytes of the preface that came.
    matched: usize,
}

impl<C> Patience<C> {
    /// Starts to wait for the first bytes.
    pub(super) fn new(inner: C, opening_timeout: Duration, write_timeout: Duration) -> Self {
        let opening = Opening { deadline: Box::pin(tokio::time::sleep(opening_timeout)), matched: 0 };
        Self { inner, opening: Some(opening), write_timeout, writing: None }
    }

    /// Passes on how a write went, or its failure once it has waited for too long.
    fn written<T>(&mut self, cx: &mut Context<'_>, went: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if went.is_ready() {
            self.writing = None;
            return went;
        }
        let timeout = self.write_timeout;
        let deadline = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no bytes")))
    }
}

impl Opening {
    /// Whether these bytes make clear which version it is.
    fn is_over_after(&mut self, bytes: &[u8]) -> bool {
        let rest = &PREFACE[self.matched..];
        let common = bytes.iter().zip(rest).take_while(|(byte, expected)| byte == expected).count();
        self.matched += common;
        common < bytes.len() || self.matched == PREFACE.len()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Patience<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        let Some(opening) = &mut this.opening else { return read };
        if opening.is_over_after(&buf.filled()[before..]) {
            this.opening = None;
            return read;
        }
        // Also after bytes that came: else a peer that drips them would be asked for the next ones without end.
        if opening.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer asks for nothing")));
        }
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Patience<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let went = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.written(cx, went)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let went = Pin::new(&mut this.inner).poll_flush(cx);
        this.written(cx, went)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let went = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.written(cx, went)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let went = Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
        this.written(cx, went)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const OPENING: Duration = Duration::from_secs(60);
    const WRITE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_drips_the_preface_is_cut_and_one_that_asks_may_pause() {
        let (mut peer, ours) = duplex(64);
        let mut patience = Patience::new(ours, OPENING, WRITE);
        let dripping = tokio::spawn(async move {
            for byte in PREFACE {
                tokio::time::sleep(OPENING / 10).await;
                if peer.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        });
        let mut bytes = [0; 24];
        let cut = patience.read_exact(&mut bytes).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
        drop(patience);
        dripping.await.unwrap();
        for opening in [b"POST".as_slice(), PREFACE] {
            let (mut peer, ours) = duplex(64);
            let mut patience = Patience::new(ours, OPENING, WRITE);
            peer.write_all(opening).await.unwrap();
            patience.read_exact(&mut bytes[..opening.len()]).await.unwrap();
            let waiting = tokio::time::timeout(OPENING * 10, patience.read_u8()).await;
            assert!(waiting.is_err(), "{waiting:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_little_by_little_lives_and_one_that_stops_is_cut() {
        let (mut peer, ours) = duplex(1);
        let mut patience = Patience::new(ours, OPENING, WRITE);
        let reading = tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(WRITE * 2 / 3).await;
                peer.read_u8().await.unwrap();
            }
            peer
        });
        patience.write_all(&[0; 11]).await.unwrap();
        let _peer = reading.await.unwrap();
        tokio::time::sleep(WRITE * 10).await;
        let cut = patience.write_all(&[0; 2]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
    }
}
