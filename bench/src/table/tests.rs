use super::*;

fn table() -> Table {
    let mut table = Table::new(1, ["figure", "floor", "carillon"]);
    table.row(["CPU per delivery", "3.512", "3.6"]);
    table.row(["lost", "0"]);
    table
}

#[test]
fn plain_columns_are_aligned() {
    assert_eq!(
        table().plain(),
        "  figure            floor  carillon\n  CPU per delivery  3.512       3.6\n  lost                  0\n"
    );
}

#[test]
fn a_markdown_table_has_a_rule_below_the_head() {
    assert_eq!(
        table().markdown(),
        "| figure           | floor | carillon |\n\
         | ---------------- | ----: | -------: |\n\
         | CPU per delivery | 3.512 |      3.6 |\n\
         | lost             |     0 |          |\n"
    );
}

#[test]
fn digits_are_grouped() {
    for (value, decimals, expected) in [
        (0.0, 0, "0"),
        (999.0, 0, "999"),
        (1_000.0, 0, "1,000"),
        (1_234_567.891, 2, "1,234,567.89"),
        (-1_234.5, 1, "-1,234.5"),
        (-0.001, 1, "0.0"),
    ] {
        assert_eq!(number(value, decimals), expected);
    }
}
