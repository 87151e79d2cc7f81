use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;

use super::*;

/// Files, and the variables that vlucas/phpdotenv sets when it reads them.
#[derive(Deserialize)]
struct Table {
    environment: std::collections::BTreeMap<String, String>,
    files: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    file: String,
    /// `None`: the library refuses the file.
    values: Option<std::collections::BTreeMap<String, String>>,
}

fn table() -> Table {
    serde_json::from_str(include_str!("phpdotenv.json")).unwrap()
}

fn pairs<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Pairs {
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn parse(text: &str) -> EnvFile {
    EnvFile::of_text(text, &[])
}

#[track_caller]
fn check_values(text: &str, expected: &[(&str, &str)]) {
    assert_eq!(parse(text).variables, pairs(expected.iter().copied()), "{text:?}");
}

#[test]
fn every_file_has_the_values_of_phpdotenv() {
    let Table { environment, files } = table();
    let environment = pairs(environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    assert!(files.len() > 400);
    for Row { file, values } in &files {
        let mut read = EnvFile::parse(file.as_bytes(), &environment);
        let open = read.broken.iter().position(|broken| broken.problem == Problem::OpenToEnd);
        if let Some(first) = open {
            // The library drops the rest of the file. This parser continues with the next line.
            let line = read.broken[first].line;
            read = EnvFile::parse(file.lines().take(line - 1).collect::<Vec<_>>().join("\n").as_bytes(), &environment);
        }
        match values {
            None => assert!(!read.broken.is_empty(), "{file:?} should be refused: {:?}", read.variables),
            Some(values) => {
                let expected: Vec<(&str, &str)> = values.iter().map(|(name, value)| (&**name, &**value)).collect();
                let mut found: Vec<(&str, &str)> =
                    read.variables.iter().map(|(name, value)| (&**name, &**value)).collect();
                found.sort_unstable();
                assert_eq!((found, read.broken.as_slice()), (expected, &[][..]), "{file:?}");
            }
        }
    }
}

#[test]
fn the_table_matches_the_library_if_it_is_installed() {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/config/env_file/phpdotenv.php");
    let Ok(finished) = Command::new("php").arg(script).arg("--check").status() else { return };
    // 3: PHP is installed without the library.
    assert!(matches!(finished.code(), Some(0 | 3)), "run phpdotenv.php: {finished}");
}

#[test]
fn invalid_bytes_become_question_marks_and_one_byte_order_mark_is_removed() {
    let read = EnvFile::parse(b"\xef\xbb\xbfA=a\xff\xc3b\n", &[]);
    assert_eq!(read.variables, pairs([("A", "a??b")]));
}

#[test]
fn a_name_alone_unsets_a_variable_and_a_later_empty_value_wins() {
    check_values("A=1\nB=2\nA\n", &[("B", "2")]);
    check_values("A=1\nA=\n", &[("A", "")]);
    check_values("A=1\nB=2\nA=3\n", &[("B", "2"), ("A", "3")]);
}

#[test]
fn variables_of_the_process_take_precedence_even_if_they_are_empty() {
    let environment = pairs([("A", ""), ("B", "process")]);
    let read = EnvFile::parse(b"A=file\nB=file\nC=${A}-${B}\nA\n", &environment);
    assert_eq!(read.variables, pairs([("C", "-process")]));
}

#[test]
fn an_unreadable_line_does_not_affect_other_lines() {
    for broken in [
        "APP_NAME=My Shop",
        "MAIL=\"open",
        "MAIL='open",
        "MAIL=\"a\\bcd\"",
        "a line of prose",
        "=value",
        "X=\"a\"b\"",
        "X=\"several\nlines\" and=\"more\"",
        "# a comment with an=\"open quote",
    ] {
        let read = parse(&format!("A=1\n{broken}\nB=2\n"));
        assert_eq!(read.variables.first(), pairs([("A", "1")]).first(), "{broken:?}");
        assert_eq!(read.variables.last(), pairs([("B", "2")]).last(), "{broken:?}");
        assert_eq!(read.broken.first().map(|broken| broken.line), Some(2), "{broken:?}");
    }
}

#[test]
fn an_open_quote_of_another_variable_does_not_hide_a_later_variable() {
    let read = parse("MAIL=\"open\nREVERB_APP_SECRET=\"s\"\n");
    assert_eq!(read.variables, pairs([("REVERB_APP_SECRET", "s")]));
}

#[test]
fn warnings_name_the_line_and_the_variable_but_no_value() {
    let read = parse("A=1\nAPP_NAME=My Shop\n\nnothing but prose\nMAIL=\"open\nB=2\n");
    assert_eq!(
        read.warnings(),
        [
            "line 2 of .env is ignored: APP_NAME: expected nothing after the value; a value with spaces needs quotes around \
             all of it. Laravel refuses a file with such a line",
            "line 4 of .env is ignored: expected a name of letters, digits and underscores, alone or before an equals sign. \
             Laravel refuses a file with such a line",
            "line 5 of .env is ignored: MAIL: expected a closing quote. Laravel ignores this line and all lines after it",
        ]
    );
    let key = parse("KEY=-----BEGIN\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC/KcwggSj+gEAAoIBAQC7\nQUJDRA b==\n");
    let warnings = key.warnings();
    assert_eq!(warnings.len(), 2);
    assert!(warnings.iter().all(|warning| !warning.contains("MII") && !warning.contains("b==")), "{warnings:?}");
    let many = parse(&"a b\n".repeat(25));
    let warnings = many.warnings();
    assert_eq!(warnings.len(), 11);
    assert_eq!(warnings[10], ".env: 15 more lines are ignored, because they cannot be read");
}

#[test]
fn a_variable_that_is_read_must_be_readable() {
    let read = parse("export REVERB_APP_KEY=two words\nCARILLON_SERVER__PORT=\"1\nB=2\n");
    let mistake = read.value("REVERB_APP_KEY").unwrap_err().to_string();
    assert!(mistake.starts_with("REVERB_APP_KEY: expected nothing after the value"), "{mistake}");
    assert!(mistake.ends_with("(from line 1 of .env)") && !mistake.contains("words"), "{mistake}");
    assert_eq!(read.value("B").unwrap(), Some("2"));
    assert_eq!(read.value("C").unwrap(), None);
    let refused = read.refuse_broken("CARILLON_").unwrap_err().to_string();
    assert_eq!(refused, "CARILLON_SERVER__PORT: expected a closing quote (from line 2 of .env)");
    assert!(read.refuse_broken("PUSHER_").is_ok());
}

#[test]
fn too_large_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    std::fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    assert!(EnvFile::read(&path, &[]).is_err());
    std::fs::write(&path, vec![b'#'; 1024 * 1024]).unwrap();
    assert!(EnvFile::read(&path, &[]).is_ok());
}

#[test]
fn the_parser_never_panics() {
    let alphabet = ["A", "=", "\"", "'", "\\", "$", "{A}", "#", " ", "\n", "\r", "é"];
    let mut texts = vec![String::new()];
    for _ in 0..5 {
        texts = texts.iter().flat_map(|text| alphabet.map(|piece| format!("{text}{piece}"))).collect();
        if texts.len() > 20_000 {
            // A thirteenth of the texts still has every piece at every position.
            texts = texts.into_iter().step_by(13).collect();
        }
        for text in &texts {
            let read = EnvFile::of_text(text, &[]);
            assert!(read.variables.len() + read.broken.len() <= text.chars().count());
        }
    }
}
