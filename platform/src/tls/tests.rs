//! Goal: only members of one cluster talk, everybody else is refused and disturbs nobody; files that change are noticed.
//! Method: real connections on loopback, with certificates of two authorities and two clusters.

use std::io;
use std::sync::Arc;

use carnax_test_certificates::{Authority, Files, Issued};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::{ClusterTls, ClusterTlsSettings, Part, Roles, ServerTls, Speaks, TlsError, TlsFiles, TlsNetwork};
use crate::clock::SystemClock;
use crate::network::{Connection, Listener, Network, Peer, TcpNetwork};

const NODE: &str = "node.blue.carnax.internal";
const FRONTEND: &str = "frontend.blue.carnax.internal";

struct Member {
    files: Files,
    tls: ClusterTls,
    _dir: TempDir,
}

impl Member {
    fn new(issued: &Issued, trusted: &[&Authority], cluster: &str, part: Part) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::write(dir.path(), issued, trusted).unwrap();
        let tls = open(&files, cluster, part).unwrap();
        Self { files, tls, _dir: dir }
    }

    fn network(&self) -> TlsNetwork {
        self.tls.network(Arc::new(TcpNetwork))
    }
}

fn open(files: &Files, cluster: &str, part: Part) -> Result<ClusterTls, TlsError> {
    let settings = ClusterTlsSettings {
        tls_cert: Some(files.cert.clone()),
        tls_key: Some(files.key.clone()),
        tls_ca: Some(files.ca.clone()),
        tls_cluster: Some(cluster.parse().unwrap()),
        ..ClusterTlsSettings::default()
    };
    ClusterTls::open(&settings, part, Arc::new(SystemClock::new())).map(|tls| tls.expect("all is said"))
}

/// Echoes one byte to each connection, and tells who it was.
async fn echo(network: &dyn Network) -> (String, mpsc::UnboundedReceiver<Peer>) {
    let listener = network.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address().unwrap().to_string();
    (address, echo_at(listener))
}

fn echo_at(mut listener: Box<dyn Listener>) -> mpsc::UnboundedReceiver<Peer> {
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = tell.send(connection.peer());
            tokio::spawn(async move {
                while let Ok(byte) = connection.read_u8().await {
                    let written = async { connection.write_u8(byte).await.and(connection.flush().await) };
                    if written.await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    told
}

async fn talk(connection: &mut Connection) -> io::Result<()> {
    connection.write_u8(7).await?;
    connection.flush().await?;
    assert_eq!(connection.read_u8().await?, 7);
    Ok(())
}

/// Whether a client gets an answer, or why not.
async fn try_talk(network: &dyn Network, address: &str) -> Result<(), String> {
    let talked = async { talk(&mut network.connect(address).await?).await };
    talked.await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn members_of_a_cluster_talk_and_are_known_by_their_roles() {
    let ca = Authority::new("ca");
    let server = Member::new(&ca.issue(&[NODE]), &[&ca], "blue", Part::Node);
    let (address, mut peers) = echo(&server.network()).await;
    let roles = |node, frontend| Peer::Member(Roles { node, frontend });
    for (names, part, expected) in [
        (&[NODE][..], Part::Node, roles(true, false)),
        (&[FRONTEND], Part::Frontend, roles(false, true)),
        (&["elsewhere", FRONTEND, NODE], Part::Frontend, roles(true, true)),
    ] {
        let client = Member::new(&ca.issue(names), &[&ca], "blue", part);
        assert_eq!(try_talk(&client.network(), &address).await, Ok(()));
        assert_eq!(peers.recv().await, Some(expected));
    }
    assert_eq!(server.tls.status().handshakes_failed, 0);
    assert!(server.tls.status().expires.unwrap() > server.tls.status().loaded);
}

#[tokio::test]
async fn strangers_are_refused_and_disturb_nobody() {
    let (ca, other, namesake) = (Authority::new("ca"), Authority::new("other"), Authority::new("ca"));
    let server = Member::new(&ca.issue(&[NODE]), &[&ca], "blue", Part::Node);
    let (address, mut peers) = echo(&server.network()).await;
    let friend = Member::new(&ca.issue(&[FRONTEND]), &[&ca], "blue", Part::Frontend);
    let mut standing = friend.network().connect(&address).await.unwrap();
    talk(&mut standing).await.unwrap();
    // It says nothing, and is still there when the others are served.
    let _silent = TcpStream::connect(&address).await.unwrap();

    let red = "frontend.red.carnax.internal";
    let strangers = [
        ("another authority", other.issue(&[FRONTEND]), "UnknownCA"),
        ("an authority that pretends", namesake.issue(&[FRONTEND]), "DecryptError"),
        ("its time is over", ca.issue_expired(&[FRONTEND]), "Expired"),
    ];
    for (who, issued, alert) in strangers {
        let stranger = Member::new(&issued, &[&ca], "blue", Part::Frontend);
        let refused = try_talk(&stranger.network(), &address).await.unwrap_err();
        assert!(refused.contains(alert), "{who}: {refused}");
    }
    // Another cluster of the same authority: each side refuses the other one.
    let neighbour = Member::new(&ca.issue(&[red, "node.red.carnax.internal"]), &[&ca], "red", Part::Node);
    let refused = try_talk(&neighbour.network(), &address).await.unwrap_err();
    assert!(refused.contains(NODE) && refused.contains("node.red"), "{refused}");
    let refused = plain_client(&ca, &address, Some(&ca.issue(&[red]))).await.unwrap_err();
    assert!(refused.contains("BadCertificate"), "{refused}");
    let refused = plain_client(&ca, &address, None).await.unwrap_err();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    let mut rubbish = TcpStream::connect(&address).await.unwrap();
    rubbish.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    rubbish.read_to_end(&mut Vec::new()).await.unwrap();

    talk(&mut standing).await.unwrap();
    assert_eq!(try_talk(&friend.network(), &address).await, Ok(()));
    assert_eq!(server.tls.status().handshakes_failed, 7);
    assert_eq!((neighbour.tls.status().handshakes_failed, friend.tls.status().handshakes_failed), (1, 0));
    let frontend = Some(Peer::Member(Roles { node: false, frontend: true }));
    assert_eq!((peers.recv().await, peers.recv().await, peers.try_recv().ok()), (frontend, frontend, None));
}

/// A client that does not look at the server's name, and shows what it likes.
async fn plain_client(ca: &Authority, address: &str, shows: Option<&Issued>) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::write(dir.path(), &ca.issue(&["x"]), &[ca]).unwrap();
    let roots: RootCertStore = super::files::roots(&files.ca, ca.pem().as_bytes()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = match shows {
        Some(issued) => {
            let chain = super::files::chain(&files.cert, issued.certificate.as_bytes()).unwrap();
            let key = super::files::key(&files.key, issued.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(NODE).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let talked = async {
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        talk(&mut Connection::new(stream)).await
    };
    talked.await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn authorities_and_certificates_are_replaced_while_connections_go_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = Member::new(&old.issue(&[NODE]), &[&old], "blue", Part::Node);
    let client = Member::new(&old.issue(&[FRONTEND]), &[&old], "blue", Part::Frontend);
    let (address, _peers) = echo(&server.network()).await;
    let network = client.network();
    let mut standing = network.connect(&address).await.unwrap();
    let loaded = server.tls.loaded.configs();
    server.tls.loaded.look();
    assert!(Arc::ptr_eq(&loaded, &server.tls.loaded.configs()), "nothing has changed");

    // Both authorities; then new certificates, one after the other; then the new authority alone.
    let steps: [&dyn Fn(); 4] = [
        &|| {
            server.files.trust(&[&old, &new]).unwrap();
            client.files.trust(&[&old, &new]).unwrap();
        },
        &|| server.files.put(&new.issue(&[NODE])).unwrap(),
        &|| client.files.put(&new.issue(&[FRONTEND])).unwrap(),
        &|| {
            server.files.trust(&[&new]).unwrap();
            client.files.trust(&[&new]).unwrap();
        },
    ];
    for step in steps {
        step();
        server.tls.loaded.look();
        client.tls.loaded.look();
        assert_eq!(try_talk(&network, &address).await, Ok(()));
        talk(&mut standing).await.unwrap();
    }
    let late = Member::new(&old.issue(&[FRONTEND]), &[&old, &new], "blue", Part::Frontend);
    assert!(try_talk(&late.network(), &address).await.is_err(), "the old authority is trusted no more");
}

#[tokio::test]
async fn what_cannot_be_used_replaces_nothing() {
    let ca = Authority::new("ca");
    let server = Member::new(&ca.issue(&[NODE]), &[&ca], "blue", Part::Node);
    let (address, _peers) = echo(&server.network()).await;
    let client = Member::new(&ca.issue(&[FRONTEND]), &[&ca], "blue", Part::Frontend);
    let before = server.tls.status();
    let breakages: [&dyn Fn(); 5] = [
        &|| std::fs::write(&server.files.cert, "no certificate").unwrap(),
        &|| std::fs::write(&server.files.cert, ca.issue(&[NODE]).certificate).unwrap(),
        &|| server.files.put(&ca.issue(&[FRONTEND])).unwrap(),
        &|| std::fs::write(&server.files.ca, "").unwrap(),
        &|| std::fs::remove_file(&server.files.key).unwrap(),
    ];
    for breakage in breakages {
        breakage();
        server.tls.loaded.look();
        server.tls.loaded.look();
        assert_eq!(try_talk(&client.network(), &address).await, Ok(()));
        assert_eq!(server.tls.status(), before);
    }
    // It is noticed without being told.
    let fresh = tokio::spawn(server.tls.clone().keep_fresh(std::time::Duration::from_millis(10)));
    server.files.put(&ca.issue_expired(&[NODE])).unwrap();
    server.files.trust(&[&ca]).unwrap();
    while server.tls.status().expires == before.expires {
        tokio::task::yield_now().await;
    }
    let refused = try_talk(&client.network(), &address).await.unwrap_err();
    assert!(refused.contains("expired"), "{refused}");
    fresh.abort();
}

#[test]
fn a_member_starts_only_with_a_certificate_of_its_own() {
    let ca = Authority::new("ca");
    let dir = tempfile::tempdir().unwrap();
    let files = Files::write(dir.path(), &ca.issue(&[FRONTEND]), &[&ca]).unwrap();
    let error = open(&files, "blue", Part::Node).unwrap_err().to_string();
    assert!(error.contains(NODE) && error.contains(FRONTEND), "{error}");
    assert!(open(&files, "red", Part::Frontend).is_err());
    assert!(open(&files, "blue", Part::Frontend).is_ok());
    let half = ClusterTlsSettings { tls_ca: Some(files.ca), ..ClusterTlsSettings::default() };
    let error = ClusterTls::open(&half, Part::Node, Arc::new(SystemClock::new())).unwrap_err().to_string();
    assert!(error.contains("--tls-cert") && error.contains("--tls-ca"), "{error}");
    let none = ClusterTlsSettings::default();
    assert!(ClusterTls::open(&none, Part::Node, Arc::new(SystemClock::new())).unwrap().is_none());
}

#[tokio::test]
async fn an_http_server_shows_its_certificate_and_asks_for_none() {
    let ca = Authority::new("ca");
    let dir = tempfile::tempdir().unwrap();
    let Files { cert, key, .. } = Files::write(dir.path(), &ca.issue(&[NODE]), &[]).unwrap();
    let tls =
        ServerTls::open(TlsFiles { cert, key }, Speaks::Http1And2, Arc::new(SystemClock::new())).unwrap();
    let listener = tls.listener(TcpNetwork.listen("127.0.0.1:0").await.unwrap());
    let address = listener.local_address().unwrap().to_string();
    let mut peers = echo_at(listener);
    plain_client(&ca, &address, None).await.unwrap();
    assert_eq!(peers.recv().await, Some(Peer::Anyone));
    let refused = plain_client(&Authority::new("other"), &address, None).await.unwrap_err();
    assert!(refused.contains("UnknownIssuer"), "{refused}");
}
