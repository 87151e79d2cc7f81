use super::*;

fn check(url: &str, refuse_private: bool) -> Result<(), RefusedAddress> {
    check_url(&url.parse().unwrap(), refuse_private)
}

#[test]
fn link_local_and_metadata_addresses_are_refused_in_every_spelling() {
    for host in [
        "169.254.169.254",
        "169.254.0.1",
        "2852039166",
        "0xa9fea9fe",
        "[fe80::1]",
        "[febf::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::a9fe:a9fe]",
        "[::169.254.169.254]",
        "[::ffff:0:169.254.169.254]",
        "[2002:a9fe:a9fe::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "192.0.0.192",
    ] {
        for refuse_private in [false, true] {
            let url = format!("http://{host}/");
            assert_eq!(check(&url, refuse_private), Err(RefusedAddress::LinkLocal), "{url}");
        }
    }
}

#[test]
fn private_networks_are_refused_only_if_configured() {
    for host in [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[fd12::1]",
        "[::ffff:10.0.0.1]",
        "[2002:a00:1::]",
        "[fec0::1]",
        "198.18.0.1",
        "192.0.0.1",
        "240.0.0.1",
    ] {
        let url = format!("http://{host}/");
        assert_eq!((check(&url, false), check(&url, true)), (Ok(()), Err(RefusedAddress::Private)), "{url}");
    }
}

#[test]
fn other_addresses_are_allowed() {
    for host in ["example.org", "8.8.8.8", "172.32.0.1", "100.128.0.1", "[2001:db8::1]", "localhost"] {
        assert_eq!(check(&format!("https://{host}/"), true), Ok(()), "{host}");
    }
}

#[tokio::test]
async fn host_names_are_checked_by_their_addresses() {
    let resolve = async |refuse_private| {
        let guard = Guard { refuse_private };
        guard.resolve("localhost".parse().unwrap()).await.map(Iterator::count)
    };
    assert!(resolve(false).await.is_ok_and(|found| found > 0));
    let error = resolve(true).await.expect_err("no address is allowed");
    assert_eq!(error.downcast_ref::<RefusedAddress>(), Some(&RefusedAddress::Private));
}
