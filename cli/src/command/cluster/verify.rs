//! `carnax cluster verify`: whether the bucket holds what the metadata core says, and what else it holds.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use carnax_core::id::NodeId;
use carnax_frontend::verify::{
    Depth, Heap, Problem, Progress, Records, Report, Step, Unreferenced, VerifyError, VerifySettings,
};
use carnax_object_store::{ObjectStoreSettings, ObjectStoreUrl};
use carnax_platform::clock::SystemClock;
use carnax_platform::network::{Network, TcpNetwork};
use carnax_platform::tls::{ClusterTls, ClusterTlsSettings, Part};
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::arguments::Global;
use crate::output::Output;

/// Problems that are shown to people; programs get more of them.
const SHOWN_MAX: usize = 50;

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Where metadata nodes listen; without, those that the frontend at --endpoint names
    #[arg(long, env = "CARNAX_METADATA", value_delimiter = ',', value_name = "HOST:PORT,…")]
    metadata: Vec<String>,
    /// The bucket or folder of the cluster: s3://bucket/prefix or file:///dir; without, that of the frontend at --endpoint
    #[arg(long, env = "CARNAX_OBJECT_STORE", value_name = "URL")]
    object_store: Option<ObjectStoreUrl>,
    /// Put the bucket into the path of S3 requests
    #[arg(long, env = "CARNAX_S3_PATH_STYLE")]
    s3_path_style: bool,
    /// Read every object, compute every checksum, decode every record
    #[arg(long, conflicts_with = "listing_only")]
    deep: bool,
    /// Only list the bucket; read nothing
    #[arg(long)]
    listing_only: bool,
    /// Requests to the object store at the same time
    #[arg(long, value_name = "REQUESTS", default_value = "16")]
    concurrency: usize,
    /// The certificate that metadata nodes see
    #[command(flatten)]
    tls: ClusterTlsSettings,
}

impl Verify {
    pub(crate) async fn run(self, global: &Global, out: &mut Output) -> anyhow::Result<()> {
        let (metadata, url) = self.places(global).await?;
        let settings = ObjectStoreSettings { s3_path_style: self.s3_path_style };
        let store = carnax_object_store::open(&url, &settings).await?;
        self.tls.check_cluster("where metadata nodes listen", metadata.iter().map(String::as_str))?;
        let tls = ClusterTls::open(&self.tls, Part::Frontend, Arc::new(SystemClock::new()))?;
        let network: Arc<dyn Network> = match tls {
            Some(tls) => Arc::new(tls.network(Arc::new(TcpNetwork))),
            None => Arc::new(TcpNetwork),
        };
        let depth = match (self.deep, self.listing_only) {
            (true, _) => Depth::Records,
            (_, true) => Depth::Listing,
            _ => Depth::Footers,
        };
        let settings = VerifySettings { metadata, depth, concurrency: self.concurrency };
        let bar = Bar::default();
        let tell = |progress: Progress| bar.show(progress);
        let verifying = carnax_frontend::verify::verify(&settings, network, store, &tell);
        let verified = Box::pin(verifying).await;
        bar.end();
        let report = verified.map_err(Unfinished)?;
        out.show(&report, describe)?;
        out.flush()?;
        match report.problem_count {
            0 => Ok(()),
            count => bail!("{count} things are wrong with the objects of the log"),
        }
    }

    /// Where metadata nodes and objects are; what was not said is asked of a frontend.
    async fn places(&self, global: &Global) -> anyhow::Result<(Vec<String>, ObjectStoreUrl)> {
        if let (false, Some(url)) = (self.metadata.is_empty(), &self.object_store) {
            return Ok((self.metadata.clone(), url.clone()));
        }
        let cluster = global.client()?.admin().cluster().await;
        let cluster =
            cluster.context("no frontend says where things are: name --metadata and --object-store")?;
        let metadata = if self.metadata.is_empty() {
            let first = |node: NodeId| u8::from(Some(node) != cluster.metadata.leader);
            let mut nodes = cluster.metadata.nodes;
            nodes.sort_by_key(|node| first(node.node));
            nodes.into_iter().map(|node| node.address).collect()
        } else {
            self.metadata.clone()
        };
        ensure!(!metadata.is_empty(), "the frontend knows no metadata node: name --metadata");
        let url = match &self.object_store {
            Some(url) => url.clone(),
            None => cluster.object_store.parse().context("name --object-store: the frontend's is none")?,
        };
        Ok((metadata, url))
    }
}

/// A verification that came to no end; whether trying again may help is the cause's to say.
#[derive(Debug, thiserror::Error)]
#[error("the verification could not be ended; nothing is known")]
struct Unfinished(#[source] VerifyError);

/// A bar on standard error, if that is a terminal; one for each step.
#[derive(Default)]
struct Bar(Mutex<Option<(Step, ProgressBar)>>);

impl Bar {
    fn show(&self, progress: Progress) {
        let mut bar = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bar.as_ref().is_none_or(|(step, _)| *step != progress.step) {
            if let Some((_, before)) = bar.take() {
                before.finish_and_clear();
            }
            *bar = Some((progress.step, begin(progress.step)));
        }
        let Some((_, bar)) = &*bar else { return };
        if progress.total > 0 {
            bar.set_length(progress.total);
        }
        bar.set_position(progress.done);
        if progress.problems > 0 {
            bar.set_message(format!("{} problems", progress.problems));
        }
    }

    fn end(&self) {
        if let Some((_, bar)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

fn begin(step: Step) -> ProgressBar {
    let (bar, template) = match step {
        Step::Manifests => (ProgressBar::new_spinner(), "{spinner} manifests {pos} {msg} {elapsed_precise}"),
        Step::Listing => (ProgressBar::new(0), "bucket  {wide_bar} {percent}% {msg} {elapsed_precise}"),
        Step::Objects => {
            (ProgressBar::new(0), "objects {wide_bar} {percent}% {msg} {elapsed_precise} eta {eta_precise}")
        }
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn describe(report: &Report) -> String {
    let mut text = String::new();
    let checked = &report.checked;
    let closely = match report.depth {
        Depth::Listing => "listed".to_owned(),
        Depth::Footers => format!("{} slices held against footers", checked.slices),
        Depth::Records => format!("{} records in {} batches decoded", checked.records, checked.batches),
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "checked       {} segments, {}: {closely}",
        checked.segments,
        HumanBytes(checked.bytes)
    );
    let bucket = &report.bucket;
    let _ = writeln!(
        text,
        "bucket        {} objects, {}, of which {} are for a restore",
        bucket.objects,
        HumanBytes(bucket.bytes),
        report.backup.objects
    );
    for (why, heap) in &report.unreferenced {
        let _ = writeln!(text, "unreferenced  {}", heap_line(*why, heap));
    }
    let _ = writeln!(text, "problems      {}", report.problem_count);
    for problem in report.problems.iter().take(SHOWN_MAX) {
        let _ = writeln!(text, "  {}", problem_line(problem));
    }
    if report.problem_count > SHOWN_MAX as u64 {
        let _ = writeln!(text, "  … and more: --output json shows up to 10,000 of them");
    }
    text
}

fn heap_line(why: Unreferenced, heap: &Heap) -> String {
    let meaning = match why {
        Unreferenced::Young => "young: they may still be committed",
        Unreferenced::Dead => "dead: workers delete them after the grace period",
        Unreferenced::Orphan => "orphans: never committed, workers delete them",
        Unreferenced::EarlierIncarnation => "lost in a restore: kept until they are discarded",
        Unreferenced::LaterIncarnation => "of a later incarnation: this cluster was restored elsewhere",
        Unreferenced::NotOurs => "not ours: Carnax did not write them here",
    };
    let example = heap.keys.first().map(|key| format!(", such as {key}")).unwrap_or_default();
    format!("{} objects, {}: {meaning}{example}", heap.objects, HumanBytes(heap.bytes))
}

fn problem_line(problem: &Problem) -> String {
    let Problem { kind, key, detail, records } = problem;
    let mut line = format!("{} {key}: {detail}", kind.as_str());
    for Records { topic, topic_id, partition, base_offset, end_offset } in records.iter().take(3) {
        let topic = topic.clone().unwrap_or_else(|| topic_id.to_string());
        let _ = write!(line, "; {topic}/{partition} offsets {base_offset} to {end_offset}");
    }
    if records.len() > 3 {
        let _ = write!(line, " and {} more ranges", records.len() - 3);
    }
    line
}
