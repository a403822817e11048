use super::*;

fn grant(operations: &[Operation], topics: Option<&str>, groups: Option<&str>, cluster: bool) -> Grant {
    let prefix = |text: Option<&str>| text.map(|text| Names::Prefix(text.to_owned()));
    Grant {
        operations: operations.iter().copied().collect(),
        topics: prefix(topics),
        groups: prefix(groups),
        cluster,
    }
}

#[test]
fn a_token_is_read_as_it_was_written_and_never_shown() {
    let made = Token::from_random(u128::MAX, [u128::MAX, 7]);
    let read: Token = made.reveal().parse().unwrap();
    assert_eq!((read.id(), &read), (made.id(), &made));
    assert_eq!(made.id().as_str().len(), 16);
    assert!(made.hash().is_of(&read));
    assert!(!made.hash().is_of(&Token::from_random(u128::MAX, [u128::MAX, 8])));
    let secret = made.reveal().rsplit('_').next().unwrap().to_owned();
    assert_eq!(secret.len(), 52);
    let shown = format!("{made:?} {:?}", made.hash());
    assert!(
        shown.contains(made.id().as_str()) && !shown.contains(&secret) && !shown.contains("255"),
        "{shown}"
    );
}

#[test]
fn what_is_no_token_is_refused_without_repeating_it() {
    let secret = "s".repeat(limits::TOKEN_SECRET_BYTES_MIN);
    assert!(format!("carnax_ops1_{secret}").parse::<Token>().is_ok());
    let long = "s".repeat(limits::TOKEN_SECRET_BYTES_MAX + 1);
    for wrong in [
        String::new(),
        "carnax_".to_owned(),
        format!("carnax_ops1{secret}"),
        format!("carnax__{secret}"),
        format!("carnax_Ops_{secret}"),
        format!("carnax_ops_{}", &secret[1..]),
        format!("carnax_ops_{long}"),
        format!("carnax_ops_{}-", &secret[1..]),
        format!("carnax_{}_{secret}", "a".repeat(limits::TOKEN_ID_BYTES_MAX + 1)),
        format!("Carnax_ops_{secret}"),
    ] {
        let error = wrong.parse::<Token>().unwrap_err();
        assert!(!error.to_string().contains(&secret), "{error}");
    }
}

#[test]
fn what_is_not_granted_is_refused() {
    use Operation::{Admin, Alter, Create, Describe, Group, Read, Write};
    let grants = [
        grant(&[Read], Some("flights"), None, false),
        Grant { topics: Some(Names::Name("orders".to_owned())), ..grant(&[Write], None, None, false) },
        grant(&[Group], None, Some("billing-"), false),
    ];
    let may = |operation, resource| allows(&grants, operation, resource);
    assert!(may(Read, Resource::Topic("flights")) && may(Read, Resource::Topic("flights-eu")));
    assert!(may(Describe, Resource::Topic("flights-eu")) && may(Describe, Resource::Topic("orders")));
    assert!(may(Write, Resource::Topic("orders")) && !may(Write, Resource::Topic("orders-eu")));
    assert!(may(Group, Resource::Group("billing-1")) && may(Describe, Resource::Group("billing-1")));
    assert!(!may(Group, Resource::Group("billing")) && !may(Read, Resource::Group("flights")));
    assert!(!may(Read, Resource::Topic("orders")) && !may(Describe, Resource::Topic("fligh")));
    for operation in [Write, Create, Alter, Group, Admin] {
        assert!(!may(operation, Resource::Topic("flights")), "{operation}");
    }
    for operation in Operation::ALL {
        assert!(!may(operation, Resource::Cluster), "{operation}");
        for resource in [Resource::Topic("t"), Resource::Group("g"), Resource::Cluster] {
            assert!(!allows(&[], operation, resource));
            assert!(allows(&[Grant::admin()], operation, resource));
        }
    }
    let cluster = [grant(&[Alter], None, None, true)];
    assert!(allows(&cluster, Describe, Resource::Cluster) && allows(&cluster, Alter, Resource::Cluster));
    assert!(!allows(&cluster, Alter, Resource::Topic("t")) && !allows(&cluster, Admin, Resource::Cluster));
    assert!(allows_some_topic(&grants, Write) && !allows_some_topic(&grants, Alter));
}

#[test]
fn a_pattern_is_allowed_only_as_a_whole() {
    let grants = [
        grant(&[Operation::Read], Some("flights-"), None, false),
        Grant {
            topics: Some(Names::Name("orders".to_owned())),
            ..grant(&[Operation::Read], None, None, false)
        },
    ];
    let may = |pattern: &str| allows_pattern(&grants, Operation::Read, &pattern.parse().unwrap());
    assert!(may("flights-*") && may("flights-eu?") && may("orders") && may("flights-eu"));
    assert!(!may("flights*") && !may("*") && !may("orders*") && !may("order?") && !may("?lights-*"));
    assert!(!allows_pattern(&grants, Operation::Write, &"flights-*".parse().unwrap()));
    assert!(allows_pattern(&[Grant::admin()], Operation::Read, &"*".parse().unwrap()));
}

#[test]
fn a_grant_that_means_nothing_is_refused() {
    use Operation::{Admin, Describe, Group, Read};
    assert_eq!(Grant::admin().check(), Ok(()));
    assert_eq!(grant(&[Read, Describe], Some(""), None, false).check(), Ok(()));
    assert_eq!(grant(&[Describe], Some("a"), Some("b"), true).check(), Ok(()));
    let wrong = [
        (grant(&[], Some(""), None, false), InvalidGrant::NoOperation),
        (grant(&[Read], None, None, false), InvalidGrant::NoResource),
        (grant(&[Admin, Read], None, None, false), InvalidGrant::AdminAlone),
        (grant(&[Admin], Some("x"), None, false), InvalidGrant::AdminAlone),
        (
            grant(&[Read], Some("x"), Some("y"), false),
            InvalidGrant::Mismatch { operation: Read, resource: "groups" },
        ),
        (
            grant(&[Group], None, Some("y"), true),
            InvalidGrant::Mismatch { operation: Group, resource: "the cluster" },
        ),
        (grant(&[Read], Some("a b"), None, false), InvalidGrant::Name { max: limits::TOPIC_NAME_BYTES_MAX }),
    ];
    for (grant, error) in wrong {
        assert_eq!(grant.check(), Err(error), "{grant:?}");
    }
    let nameless = Grant { topics: Some(Names::Name(String::new())), ..grant(&[Read], None, None, false) };
    assert!(nameless.check().is_err());
}

#[test]
fn grants_are_written_as_people_write_them() {
    let text = r#"{"operations":["read","group"],"topics":{"prefix":"flights"},"groups":{"name":"billing"}}"#;
    let grant: Grant = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&grant).unwrap(), text);
    assert!(serde_json::from_str::<Grant>(r#"{"operations":["fly"],"cluster":true}"#).is_err());
    assert!(serde_json::from_str::<Grant>(r#"{"operations":["read"],"topic":{"name":"x"}}"#).is_err());
}

#[test]
fn a_grant_in_a_line_is_read_as_it_is_written() {
    for text in [
        "admin",
        "read,write:topic/flights*",
        "read:topic/*",
        "group:group/a:b",
        "describe:topic/orders+group/*+cluster",
        "alter:cluster",
    ] {
        let grant: Grant = text.parse().unwrap();
        assert_eq!(grant.to_string(), text);
    }
    for wrong in [
        "",
        "fly:cluster",
        "read",
        "read:",
        "read:flights",
        "read:topic/",
        "read:topic/a b",
        "read:topic/a+topic/b",
        "read:cluster",
        "admin:cluster",
        "read,:topic/a",
        "group:topic/a",
        "describe:cluster+cluster",
        "read:topic/a*b",
    ] {
        assert!(wrong.parse::<Grant>().is_err(), "{wrong}");
    }
}
