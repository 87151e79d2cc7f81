//! Compares the page of close codes with the table in the source.

use std::fs;

use shared::protocol::CloseCode;
use tests::command::workspace;

#[test]
fn the_page_of_close_codes_lists_every_code() {
    let page = fs::read_to_string(workspace().join("docs/CLOSE_CODES.md")).expect("the page exists");
    let section =
        page.split("\n## ").find(|section| section.starts_with("Codes that close")).expect("the section exists");
    let listed: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|cell| cell.parse::<u16>().is_ok())
        .collect();
    let defined: Vec<&str> = CloseCode::ALL.iter().map(|code| code.label()).collect();
    assert_eq!(listed, defined);
}
