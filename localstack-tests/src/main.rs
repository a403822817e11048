//! `carnax-localstack up`: LocalStack and a cluster on it, until Ctrl-C.

use std::io::Write;

use anyhow::Result;
use carnax_localstack_tests::stack::Stack;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Runs Carnax on the S3 of a LocalStack
#[derive(Debug, Parser)]
#[command(name = "carnax-localstack")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything that is missing, LocalStack included, show how to use it, and end it all at Ctrl-C
    Up,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { command: Command::Up } = Arguments::parse();
    let mut out = std::io::stdout();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    writeln!(out, "starting (the first time LocalStack is installed, which takes a minute or two) …")?;
    let stack = tokio::select! {
        stack = Stack::start() => stack?,
        _ = interrupted.recv() => return Ok(()),
        _ = terminated.recv() => return Ok(()),
    };
    write!(out, "{}", instructions(&stack))?;
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    writeln!(out, "ending …")?;
    let Stack { cluster, templates, localstack, .. } = stack;
    cluster.end()?;
    drop(templates);
    drop(localstack);
    Ok(())
}

fn instructions(stack: &Stack) -> String {
    let [first, second] = [0, 1].map(|place| format!("http://{}", stack.cluster.frontends[place].address));
    format!(
        "\
LocalStack   {endpoint} ({origin})
bucket       {bucket}
frontends    {first} {second}

Create a topic, append through one frontend, read through the other one:

  curl -sS -X PUT {first}/v1/topics/flights -H 'content-type: application/json' -d '{{\"partitions\":1}}'
  curl -sS {first}/v1/topics/flights/records -H 'content-type: application/json' -d '{{\"records\":[{{\"key\":\"UA\",\"value\":\"on time\"}}]}}'
  curl -sS '{second}/v1/topics/flights/partitions/0/records?offset=0'

The same through the Lambda function, and through a queue whose messages become records of the topic `standard`:

  curl -sS {function}v1/topics/flights/records -H 'content-type: application/json' -d '{{\"records\":[{{\"key\":\"AA\",\"value\":\"serverless\"}}]}}'
  curl -sS -X PUT {first}/v1/topics/standard -H 'content-type: application/json' -d '{{\"partitions\":1}}'
  aws --endpoint-url {endpoint} --region us-east-1 sqs send-message --queue-url {queue} --message-body hello

Ctrl-C ends all of it.
",
        endpoint = stack.localstack.endpoint(),
        origin = stack.localstack.origin(),
        bucket = stack.outputs.bucket,
        function = stack.outputs.function_url.as_deref().unwrap_or_default(),
        queue = stack.outputs.queues.get("standard").map_or("", |queue| queue.url.as_str()),
    )
}
