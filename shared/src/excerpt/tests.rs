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

#[test]
fn a_logged_text_cannot_break_its_line() {
    assert_eq!(logged("/app/x\nERROR \u{1b}[31mforged\r\0", 64).to_string(), r"/app/x\nERROR \u{1b}[31mforged\r\u{0}");
    assert_eq!(logged("a\u{2028}b\u{202e}c\u{feff}d\u{85}e", 64).to_string(), r"a\u{2028}b\u{202e}c\u{feff}d\u{85}e");
    assert_eq!(logged(r"App\Events\OrderShipped", 64).to_string(), r"App\Events\OrderShipped");
    assert_eq!(logged("Grüße 1 \"2\"", 64).to_string(), "Grüße 1 \"2\"");
}

#[test]
fn a_logged_text_is_cut() {
    assert_eq!(logged("abc", 3).to_string(), "abc");
    assert_eq!(logged("abcd", 3).to_string(), "abc…");
    assert_eq!(logged("", 0).to_string(), "");
}
