//! `carnax dev`: a whole Carnax in one process, for development.

use std::path::PathBuf;

use anyhow::Result;
use carnax_frontend::{AccessRule, HttpsSettings};
use carnax_metadata_node::ADMIN_TOKEN_VARIABLE;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::embedded::{Embedded, Entrance};

/// What `carnax dev` takes.
#[derive(Debug, Args)]
pub(crate) struct DevArguments {
    /// Where everything is kept: the log of the metadata node, and the objects that a bucket would hold.
    #[arg(long, value_name = "DIR", default_value = "data")]
    dir: PathBuf,

    /// Where to serve HTTP.
    #[arg(long, env = "CARNAX_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: String,

    /// Who has to show an access token: by default everybody, but on a loopback address only once there is a token.
    #[arg(long, env = "CARNAX_ACCESS", value_name = "RULE")]
    access: Option<AccessRule>,

    #[command(flatten)]
    https: HttpsSettings,

    /// Let other machines come in without TLS.
    #[arg(long, env = "CARNAX_PLAINTEXT_BETWEEN_MACHINES")]
    plaintext_between_machines: bool,
}

/// Runs until it is told to stop, or fails.
pub(crate) async fn run(arguments: DevArguments) -> Result<()> {
    let admin_token = std::env::var(ADMIN_TOKEN_VARIABLE).ok();
    let entrance = Entrance {
        listen: &arguments.listen,
        access: arguments.access,
        https: arguments.https.clone(),
        plaintext_between_machines: arguments.plaintext_between_machines,
        admin_token,
    };
    let mut embedded = Embedded::start(&arguments.dir, entrance).await?;
    greet(&embedded, &arguments);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        error = embedded.ended() => return Err(error),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    eprintln!("stopping; what was accepted is finished first");
    embedded.stop().await
}

#[expect(clippy::print_stdout, reason = "the lines are there to be copied, or to be read by `eval`")]
fn greet(embedded: &Embedded, arguments: &DevArguments) {
    let scheme = if arguments.https.https_cert.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", embedded.address);
    println!("export CARNAX_ENDPOINT={url}");
    eprintln!(
        "Carnax runs in this process and keeps everything in {dir}. In another terminal:

  export CARNAX_ENDPOINT={url}
  carnax topic create flights --partitions 4
  carnax produce flights --file samples/flights.ndjson --key-field carrier
  carnax consume flights --from earliest --until-end --output json

or with nothing but curl:

  curl -X PUT {url}/v1/topics/greetings -H 'content-type: application/json' -d '{{}}'
  curl {url}/v1/topics/greetings/records -H 'content-type: application/json' -d '{{\"records\":[{{\"value\":\"hello\"}}]}}'
  curl '{url}/v1/topics/greetings/partitions/0/records?at=earliest'

Ctrl-C stops it.",
        dir = arguments.dir.display()
    );
}
