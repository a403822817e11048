//! Goal: every call of a node is open to those whom it is meant for, and to nobody else.
//! Method: all calls that a real node knows, made with every kind of certificate over real connections. What is sent with them
//! says nothing: who may call is told by the certificate alone, before anything is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request};
use carnax_object_store::MemoryStore;
use carnax_platform::clock::SystemClock;
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::TcpNetwork;
use carnax_platform::tls::ClusterTlsSettings;
use carnax_queue::SqsQueues;
use carnax_test_certificates::{Authority, Files, Issued};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::backup::BackupSettings;

const NODE: &str = "node.blue.carnax.internal";
const FRONTEND: &str = "frontend.blue.carnax.internal";
const DEADLINE: Duration = Duration::from_secs(10);
/// The gRPC status of a problem that is 403.
const PERMISSION_DENIED: &str = "7";

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is heard, whatever is answered.
    Heard,
    /// It is told that it may not.
    Forbidden,
    /// It is not even asked what it wants.
    HungUp,
}

/// Whom the rules of this test, not those of the code, let in.
fn expected(path: &str, caller: &str) -> Fate {
    let name = path.rsplit('/').next().unwrap();
    let of_nodes = name.starts_with("Raft") || ["AddNode", "DescribeCluster", "ReportUsage"].contains(&name);
    let of_frontends = !name.starts_with("Raft");
    match caller {
        "node" if of_nodes => Fate::Heard,
        "frontend" if of_frontends => Fate::Heard,
        "both" => Fate::Heard,
        "node" | "frontend" => Fate::Forbidden,
        _ => Fate::HungUp,
    }
}

#[tokio::test]
async fn every_call_is_open_to_those_it_is_meant_for_and_to_nobody_else() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let dir = tempfile::tempdir().unwrap();
    let files = Files::write(dir.path(), &ca.issue(&[NODE]), &[&ca]).unwrap();
    let stop = CancellationToken::new();
    let (router, address) = Box::pin(serving(settings(&files), &stop)).await;
    let calls: Vec<&str> = router.calls().map(|(path, _)| path).collect();
    assert!(calls.len() > 50 && calls.contains(&"/carnax.v1/RaftAppend"), "{calls:?}");

    let callers: BTreeMap<&str, Option<Issued>> = [
        ("no certificate", None),
        ("another authority", Some(other.issue(&[NODE, FRONTEND]))),
        ("another cluster", Some(ca.issue(&["node.red.carnax.internal", "frontend.red.carnax.internal"]))),
        ("no name", Some(ca.issue(&["carnax.internal"]))),
        ("expired", Some(ca.issue_expired(&[NODE, FRONTEND]))),
        ("frontend", Some(ca.issue(&[FRONTEND]))),
        ("node", Some(ca.issue(&[NODE]))),
        ("both", Some(ca.issue(&[NODE, FRONTEND]))),
    ]
    .into();
    for (caller, certificate) in &callers {
        let config = client(&ca, certificate.as_ref());
        for path in &calls {
            let fate = tokio::time::timeout(DEADLINE, call(&config, address, path)).await.unwrap();
            assert_eq!(fate, expected(path, caller), "{path} with {caller}");
        }
    }
    stop.cancel();
}

#[tokio::test]
async fn the_http_port_speaks_tls_with_clients_that_would_rather_speak_http2() {
    let ca = Authority::new("ca");
    let dir = tempfile::tempdir().unwrap();
    let files = Files::write(dir.path(), &ca.issue(&[NODE]), &[&ca]).unwrap();
    let settings = Settings { http_tls: true, ..settings(&files) };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let tls = Tls::open(&settings, &clock).unwrap();
    let listener = tls.http(TcpNetwork.listen("127.0.0.1:0").await.unwrap());
    let address = listener.local_address().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(http::serve(listener, Joined::default(), stop.clone()));
    let mut config = ClientConfig::clone(&client(&ca, None));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(NODE).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stop.cancel();
    serving.await.unwrap();
}

/// A node that is a cluster by itself, behind TLS.
async fn serving(settings: Settings, stop: &CancellationToken) -> (rpc::Router, SocketAddr) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let network = Tls::open(&settings, &clock).unwrap().network(Arc::new(TcpNetwork));
    let components = Components {
        clock,
        entropy: Arc::new(SystemEntropy),
        network,
        object_store: Arc::new(MemoryStore::new()),
        queues: Arc::new(SqsQueues::default()),
        disk: Disk::Memory(Box::default()),
    };
    let listener = components.network.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address().unwrap();
    let bootstrap = vec![address.to_string()];
    let settings = Settings { bootstrap, ..settings };
    let node = enter(&settings, &components, &address.to_string()).await.unwrap();
    let router = router(&node.duties.handle, stop);
    tokio::spawn(rpc::serve(listener, router.clone(), stop.clone().cancelled_owned()));
    (router, address)
}

fn settings(files: &Files) -> Settings {
    Settings {
        node_listen: "127.0.0.1:0".to_owned(),
        node_advertise: None,
        http_listen: "127.0.0.1:0".to_owned(),
        dir: "unused".into(),
        bootstrap: Vec::new(),
        object_store: "memory://unused".parse().unwrap(),
        s3_path_style: false,
        maintenance_queue: None,
        backup: BackupSettings::off(),
        disk_free_min: None,
        feature_level_max: None,
        admin_token_file: None,
        admin_token: None,
        tls: ClusterTlsSettings {
            tls_cert: Some(files.cert.clone()),
            tls_key: Some(files.key.clone()),
            tls_ca: Some(files.ca.clone()),
            tls_cluster: Some("blue".parse().unwrap()),
            ..ClusterTlsSettings::default()
        },
        http_tls: false,
        heartbeat: Duration::from_millis(50),
        election: Duration::from_millis(200),
        snapshot_log_bytes: crate::SNAPSHOT_LOG_BYTES,
    }
}

fn client(ca: &Authority, shows: Option<&Issued>) -> Arc<ClientConfig> {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der(&ca.pem())).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = match shows {
        Some(Issued { certificate, key }) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![der(certificate)], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Makes a call with an empty message.
async fn call(config: &Arc<ClientConfig>, address: SocketAddr, path: &str) -> Fate {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(NODE).unwrap();
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.unwrap();
    let Ok((mut sender, connection)) =
        http2::handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(stream)).await
    else {
        return Fate::HungUp;
    };
    tokio::spawn(connection);
    let request = Request::post(format!("http://node{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::from(vec![0; 5]));
    match sender.send_request(request.unwrap()).await {
        Ok(response) if is(response.headers().get("grpc-status"), PERMISSION_DENIED) => Fate::Forbidden,
        Ok(response) => {
            assert_eq!(response.status(), 200, "a call that is known");
            assert!(!is(response.headers().get("grpc-status"), "12"), "{path} has a handler");
            Fate::Heard
        }
        Err(_) => Fate::HungUp,
    }
}

fn is(header: Option<&HeaderValue>, value: &str) -> bool {
    header.is_some_and(|header| header == value)
}
