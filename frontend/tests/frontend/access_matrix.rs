//! Goal: every route lets in whom its permission says, and nobody else.
//! Method: generated from the table of routes: each route × each kind of caller, and each route × each single grant. A route whose
//! permission depends on what it names has to be written down here, or the test fails.

use std::time::Duration;

use carnax_core::access::{Grant, Names, Operation};
use carnax_frontend::{Permission, Route, routes};
use http::StatusCode;

use super::access::{Tokens, grant, on_all_groups, on_all_topics, on_cluster, on_groups, on_topics};
use super::support::{Answer, Frontend, start_with};

const PREFIX: &str = "flights";
const OTHER: &str = "other";

/// A request to a route that names the topic `flights-1` and the group `flights-1` wherever it can.
fn request(route: &Route) -> (String, &'static str) {
    let values = [
        ("{topic}", "flights-1"),
        ("{group}", "flights-1"),
        ("{partition}", "0"),
        ("{wakeup}", "w"),
        ("{producer}", "p"),
        ("{member}", "m"),
        ("{node}", "77"),
        ("{token}", "nobody"),
        ("{asset}", "app.js"),
    ];
    let path =
        values.into_iter().fold(route.path.to_owned(), |path, (name, value)| path.replace(name, value));
    assert!(!path.contains('{'), "{path} has a parameter that this test does not know");
    let body = match (route.method, route.path) {
        ("post", "/v1/append") => r#"{"records":[{"topic":"flights-1","value":"x"}]}"#,
        ("post", "/v1/groups/{group}/members") => r#"{"topics":["flights-1"]}"#,
        ("post", "/v1/groups/{group}/offsets") => {
            r#"{"offsets":[{"topic":"flights-1","partition":0,"offset":1}]}"#
        }
        ("post", "/v1/groups/{group}/offsets/reset") => r#"{"topics":["flights-1"],"to":"earliest"}"#,
        ("post" | "put" | "patch", _) => "{}",
        _ => "",
    };
    (path, body)
}

async fn call(frontend: &Frontend, route: &Route, token: Option<&str>) -> Answer {
    let (path, body) = request(route);
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    frontend.call(&route.method.to_uppercase(), &path, &headers, body).await
}

/// Whether the caller was let in, whatever came of the request then.
#[track_caller]
fn is_let_in(route: &Route, answer: &Answer) -> bool {
    match answer.status {
        StatusCode::UNAUTHORIZED => {
            answer.problem("unauthenticated");
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{route:?}");
            false
        }
        StatusCode::FORBIDDEN => {
            answer.problem("forbidden");
            false
        }
        _ => true,
    }
}

/// What a route is meant to need: grants of which each one suffices. Written down here once more for routes that decide by what
/// they name.
fn sufficient(route: &Route) -> Vec<Vec<Grant>> {
    let implied = |operation: Operation, all: &[Operation]| -> Vec<Operation> {
        if operation == Operation::Describe { all.to_vec() } else { vec![operation] }
    };
    let on_topic =
        [Operation::Read, Operation::Write, Operation::Create, Operation::Alter, Operation::Describe];
    match route.permission {
        Permission::Public => vec![Vec::new()],
        Permission::Topic(operation) | Permission::SomeTopic(operation) => {
            let enough = implied(operation, &on_topic).into_iter();
            enough.map(|operation| vec![on_topics(&[operation], PREFIX)]).collect()
        }
        Permission::Group(operation) => {
            // What the body names is to be read, too.
            let reads = match (route.method, route.path) {
                (
                    "post",
                    "/v1/groups/{group}/members"
                    | "/v1/groups/{group}/offsets"
                    | "/v1/groups/{group}/offsets/reset",
                ) => {
                    vec![on_topics(&[Operation::Read], PREFIX)]
                }
                _ => Vec::new(),
            };
            let enough = implied(operation, &[Operation::Group, Operation::Describe]).into_iter();
            enough.map(|operation| [vec![on_groups(&[operation], PREFIX)], reads.clone()].concat()).collect()
        }
        Permission::Cluster(Operation::Admin) => Vec::new(),
        Permission::Cluster(operation) => {
            let enough = implied(operation, &[Operation::Alter, Operation::Describe]).into_iter();
            enough.map(|operation| vec![on_cluster(operation)]).collect()
        }
        Permission::Checked => match (route.method, route.path) {
            // Any token is let in; what the answer shows is tested beside.
            ("get", "/v1/topics" | "/v1/groups") => vec![vec![on_topics(&[Operation::Read], OTHER)]],
            ("post", "/v1/append") => vec![vec![on_topics(&[Operation::Write], PREFIX)]],
            unknown => panic!("{unknown:?} decides by what it names: say here what it is meant to need"),
        },
    }
}

/// Everything that does not suffice alone, on the right names, on others, on the cluster.
fn single_grants() -> Vec<Grant> {
    let mut grants = Vec::new();
    for operation in Operation::ALL {
        for names in [PREFIX, OTHER] {
            grants.extend([on_topics(&[operation], names), on_groups(&[operation], names)]);
        }
        grants.push(on_cluster(operation));
    }
    grants.retain(|grant| grant.check().is_ok());
    grants
}

async fn start() -> Frontend {
    let frontend = start_with(|settings| {
        // Calls that the metadata node of the test does not have are not to take long.
        settings.calls.deadline = Duration::from_millis(300);
    })
    .await;
    frontend.create("flights-1", 1).await;
    frontend
}

#[tokio::test]
async fn each_route_lets_in_whoever_it_is_meant_for_and_nobody_else() {
    let frontend = start().await;
    let tokens = Tokens::of(&frontend).await;
    let expired = tokens.make_expired().await;
    let revoked = tokens.make_revoked().await;
    let wrong = {
        let (id, _) = tokens.admin.rsplit_once('_').unwrap();
        format!("{id}_{}", "0".repeat(52))
    };
    let other = tokens
        .make(vec![
            on_topics(&[Operation::Read, Operation::Write, Operation::Create, Operation::Alter], OTHER),
            on_groups(&[Operation::Group], OTHER),
        ])
        .await;
    let strangers = [
        ("no token", None),
        ("no token at all", Some("carnax_nonsense")),
        ("a wrong secret", Some(wrong.as_str())),
        ("an expired token", Some(expired.as_str())),
        ("a revoked token", Some(revoked.as_str())),
    ];
    let mut rows = 0;
    for route in routes() {
        let is_public = route.permission == Permission::Public;
        for (who, token) in strangers {
            let answer = call(&frontend, route, token).await;
            assert_eq!(is_let_in(route, &answer), is_public, "{route:?} with {who}: {answer:?}");
            assert!(is_public || answer.status == StatusCode::UNAUTHORIZED, "{route:?} with {who}");
            rows += 1;
        }
        let with_other = call(&frontend, route, Some(&other)).await;
        let is_list = matches!((route.method, route.path), ("get", "/v1/topics" | "/v1/groups"));
        // A producer is of no topic: who may write to any may ask.
        let is_for_anybody =
            is_list || matches!(route.permission, Permission::Public | Permission::SomeTopic(_));
        assert_eq!(
            is_let_in(route, &with_other),
            is_for_anybody,
            "{route:?} with another prefix: {with_other:?}"
        );
        let right = call(&frontend, route, Some(&tokens.admin)).await;
        assert!(is_let_in(route, &right), "{route:?} with an administrator's token: {right:?}");
        rows += 2;
    }
    assert!(rows > 250, "only {rows} rows");
    frontend.stop().await;
}

#[tokio::test]
async fn each_route_needs_exactly_what_its_permission_says() {
    let frontend = start().await;
    let tokens = Tokens::of(&frontend).await;
    let mut singles = Vec::new();
    for grant in single_grants() {
        singles.push((tokens.make(vec![grant.clone()]).await, grant));
    }
    for route in routes().filter(|route| route.permission != Permission::Public) {
        let enough = sufficient(route);
        for grants in &enough {
            let token = tokens.make(grants.clone()).await;
            let answer = call(&frontend, route, Some(&token)).await;
            assert!(is_let_in(route, &answer), "{route:?} with {grants:?}: {answer:?}");
        }
        for (token, grant) in &singles {
            let is_list = matches!((route.method, route.path), ("get", "/v1/topics" | "/v1/groups"));
            let anywhere = |grant: &Grant| Grant { topics: prefix(PREFIX), ..grant.clone() };
            let meant = match route.permission {
                _ if is_list || grant.is_admin() => true,
                Permission::SomeTopic(_) if grant.topics.is_some() => enough.contains(&vec![anywhere(grant)]),
                _ => enough.contains(&vec![grant.clone()]),
            };
            let answer = call(&frontend, route, Some(token)).await;
            assert_eq!(is_let_in(route, &answer), meant, "{route:?} with {grant:?}: {answer:?}");
        }
    }
    frontend.stop().await;
}

fn prefix(text: &str) -> Option<Names> {
    Some(Names::Prefix(text.to_owned()))
}

#[tokio::test]
async fn the_description_of_the_api_and_the_table_of_routes_name_the_same() {
    let frontend = start_with(|_| {}).await;
    let description = frontend.get("/openapi.json").await.json();
    let mut described = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        described.extend(item.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())));
    }
    let mut table: Vec<_> = routes().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
    // The console is for people, not for programs.
    table.retain(|(_, path)| path != "/openapi.json" && !path.starts_with("/console"));
    described.sort();
    table.sort();
    assert_eq!(table, described);
    frontend.stop().await;
}

/// The table in `docs/access.md` is the one that holds.
#[test]
fn the_table_of_permissions_is_documented() {
    let mut rows: Vec<_> = routes()
        .map(|route| format!("| `{} {}` | {} |", route.method.to_uppercase(), route.path, route.permission))
        .collect();
    rows.sort_by_key(|row| row.split('/').skip(1).collect::<Vec<_>>().join("/"));
    let table = rows.join("\n");
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/access.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&table), "docs/access.md has another table of routes than this:\n{table}");
}

#[tokio::test]
async fn an_administrator_may_do_everything_that_grants_on_everything_allow_not() {
    let frontend = start().await;
    let tokens = Tokens::of(&frontend).await;
    let everything =
        [on_all_topics(), on_all_groups(), grant(&[Operation::Alter, Operation::Describe], None, None, true)];
    let token = tokens.make(everything.to_vec()).await;
    for route in routes() {
        let is_for_admins = route.permission == Permission::Cluster(Operation::Admin);
        let answer = call(&frontend, route, Some(&token)).await;
        assert_eq!(is_let_in(route, &answer), !is_for_admins, "{route:?}: {answer:?}");
    }
    frontend.stop().await;
}
