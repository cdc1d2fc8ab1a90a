//! JSON that can stand inside a page: no text of a run can end the element that holds it.

use core::fmt::Display;

/// A JSON text under construction; the caller opens and closes what it nests.
#[derive(Debug, Default)]
pub struct Json {
    text: String,
}

impl Json {
    /// Opens an object or an array: `{` or `[`.
    pub fn open(&mut self, bracket: char) -> &mut Self {
        self.comma();
        self.text.push(bracket);
        self
    }

    /// Closes an object or an array: `}` or `]`.
    pub fn close(&mut self, bracket: char) -> &mut Self {
        self.text.push(bracket);
        self
    }

    /// Names the value that follows.
    pub fn key(&mut self, name: &str) -> &mut Self {
        self.string(name);
        self.text.push(':');
        self
    }

    /// A number, or another word of JSON.
    pub fn word(&mut self, value: impl Display) -> &mut Self {
        self.comma();
        self.text.push_str(&value.to_string());
        self
    }

    /// A string; whatever HTML could take for its own is escaped.
    pub fn string(&mut self, value: &str) -> &mut Self {
        self.comma();
        self.text.push('"');
        for letter in value.chars() {
            match letter {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '<' | '>' | '&' | '\'' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                    self.text.push_str(&format!("\\u{:04x}", u32::from(letter)));
                }
                plain => self.text.push(plain),
            }
        }
        self.text.push('"');
        self
    }

    /// Separates the next value from the one before it.
    fn comma(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with(['{', '[', ':', ',']) {
            self.text.push(',');
        }
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_separated_and_nested() {
        let mut json = Json::default();
        json.open('{').key("a").word(1).key("b").open('[').word(2).string("x:").string("y");
        json.open('[').close(']').close(']').close('}');
        assert_eq!(json.finish(), r#"{"a":1,"b":[2,"x:","y",[]]}"#);
    }

    #[test]
    fn no_string_can_end_its_element() {
        let mut json = Json::default();
        json.string("</script><!--\u{2028}\n\"\\'&");
        let text = json.finish();
        assert!(!text.contains(['<', '>', '&', '\'', '\n', '\u{2028}']), "{text}");
        assert_eq!(text, r#""\u003c/script\u003e\u003c!--\u2028\u000a\"\\\u0027\u0026""#);
    }
}
