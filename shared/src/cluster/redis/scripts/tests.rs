use std::collections::BTreeSet;

use super::*;
use crate::app::AppId;
use crate::cluster::envelope::Topic;
use crate::cluster::redis::Keys;
use crate::cluster::redis::server::RedisServer;
use crate::protocol::ChannelName;

/// Returns the code of a text without its comments.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n")
}

fn words(code: &str) -> BTreeSet<&str> {
    code.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').collect()
}

/// Returns the names of the functions and constants that a part defines.
fn defined(text: &str) -> BTreeSet<&str> {
    let names = text.lines().filter_map(|line| line.strip_prefix("local function ").or(line.strip_prefix("local ")));
    names.filter_map(|rest| rest.split(['(', ' ', '\n']).next()).collect()
}

#[test]
fn a_script_is_hashed_once() {
    assert!(std::ptr::eq(join(), join()));
    assert_ne!(join().get_hash(), leave().get_hash());
    assert_ne!(join().get_hash(), rejoin().get_hash());
}

#[test]
fn a_script_uses_each_of_its_parts_and_has_no_undefined_constant() {
    for (parts, file) in ALL {
        let file_code = code(file);
        for part in *parts {
            let is_used = defined(part.text).iter().any(|name| words(&file_code).contains(name));
            assert!(is_used, "not used:\n{}\nin:\n{file}", part.text);
        }
        let text = assemble("", parts, file);
        let all_code = code(&text);
        let is_constant =
            |word: &&str| word.contains('_') && word.len() > 1 && !word.bytes().any(|byte| byte.is_ascii_lowercase());
        for name in words(&all_code).into_iter().filter(is_constant) {
            assert_eq!(all_code.matches(&format!("local {name} = ")).count(), 1, "{name} in:\n{text}");
        }
    }
}

#[test]
fn each_shared_constant_and_key_function_is_used_by_a_script() {
    let texts: Vec<String> = ALL.iter().map(|(parts, file)| code(&join_parts(parts, file))).collect();
    let functions = keys::lua_functions();
    for name in constants().into_keys().chain(functions.iter().map(|(name, _)| *name)) {
        assert!(texts.iter().any(|text| words(text).contains(name)), "{name}");
    }
}

#[tokio::test]
async fn key_names_in_lua_are_those_of_rust() {
    let (app, channel) = (AppId::from("shop"), ChannelName::parse("presence-room", 200).unwrap());
    let topic = Topic::new(&app, &channel);
    let keys = Keys::new("live", 8);
    let partition = keys.partition(&topic);
    let functions: String = keys::lua_functions().into_iter().map(|(_, text)| text).collect();
    let script = Script::new(&format!(
        "{functions} return {{webhook_queue_key(ARGV[1], ARGV[2]), subscription_counts_key(ARGV[1], ARGV[2], ARGV[3])}}"
    ));
    let server = RedisServer::start();
    let mut call = script.arg(keys.partition_prefix(partition));
    call.arg(app.as_str()).arg(channel.as_str());
    let names: Vec<String> = call.invoke_async(&mut server.connect().await).await.unwrap();
    assert_eq!(names, [keys.webhook_queue(&app, partition), keys.channel(&topic).subscription_counts()]);
}

#[tokio::test]
async fn every_script_compiles() {
    let server = RedisServer::start();
    let mut connection = server.connect().await;
    for (parts, file) in ALL {
        let text = assemble("#!lua\n", parts, file);
        let loaded: Result<String, _> = redis::cmd("SCRIPT").arg("LOAD").arg(&text).query_async(&mut connection).await;
        assert!(loaded.is_ok(), "{loaded:?} in:\n{text}");
    }
}
