use super::*;

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(excerpt(text, 3), expected);
}

#[test]
fn texts_are_cut_between_characters() {
    check("", "");
    check("abc", "abc");
    check("abcd", "abc…");
    check("éüö", "éüö");
    check("éüöß", "éüö…");
}
