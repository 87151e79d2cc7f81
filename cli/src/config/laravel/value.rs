//! The values that `env()` of Laravel returns.

/// The value of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// `null`, which means not set.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any other text.
    Text(&'a str),
}

impl<'a> Value<'a> {
    /// Reads a variable. Some words have other types, and one pair of quotes around a text is removed.
    pub(super) fn new(variable: &'a str) -> Self {
        match variable.to_ascii_lowercase().as_str() {
            "true" | "(true)" => Self::Bool(true),
            "false" | "(false)" => Self::Bool(false),
            "empty" | "(empty)" => Self::Text(""),
            "null" | "(null)" => Self::Null,
            _ => Self::Text(without_quotes(variable)),
        }
    }

    /// Returns the value as PHP converts it to a text.
    pub(super) fn text(self) -> &'a str {
        match self {
            Self::Null | Self::Bool(false) => "",
            Self::Bool(true) => "1",
            Self::Text(text) => text,
        }
    }

    /// Returns whether PHP converts the value to true.
    pub(super) fn is_true(self) -> bool {
        !matches!(self.text(), "" | "0")
    }
}

/// Removes one pair of equal quotes. The pattern of Laravel does not match line breaks.
fn without_quotes(text: &str) -> &str {
    let quoted = ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote));
    quoted.filter(|quoted| !quoted.contains('\n')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_words_have_other_types() {
        for word in ["true", "TRUE", "(true)", "(True)"] {
            assert_eq!(Value::new(word), Value::Bool(true));
        }
        assert_eq!((Value::new("false"), Value::new("(FALSE)")), (Value::Bool(false), Value::Bool(false)));
        assert_eq!((Value::new("null"), Value::new("(null)")), (Value::Null, Value::Null));
        assert_eq!((Value::new("empty"), Value::new("(empty)")), (Value::Text(""), Value::Text("")));
        for other in ["yes", "on", " true", "(true", "1", "nil", ""] {
            assert_eq!(Value::new(other), Value::Text(other));
        }
    }

    #[test]
    fn one_pair_of_quotes_is_removed() {
        for (variable, text) in [
            (r#""s 1""#, "s 1"),
            ("'s 1'", "s 1"),
            (r#"""s"""#, r#""s""#),
            (r#"'"s"'"#, r#""s""#),
            (r#""s'"#, r#""s'"#),
            (r#"""#, r#"""#),
            (r#""""#, ""),
            (r#"a"b""#, r#"a"b""#),
            ("\"a\nb\"", "\"a\nb\""),
            (r#""true""#, "true"),
        ] {
            assert_eq!(Value::new(variable), Value::Text(text));
        }
    }

    #[test]
    fn conversions_to_text_and_boolean_are_those_of_php() {
        assert_eq!(["true", "false", "null", "x"].map(|variable| Value::new(variable).text()), ["1", "", "", "x"]);
        assert_eq!(
            ["true", "1", "yes", "off", "0", "false", "null", ""].map(|variable| Value::new(variable).is_true()),
            [true, true, true, true, false, false, false, false]
        );
    }
}
