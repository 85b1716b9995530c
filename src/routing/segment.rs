//! Segment patterns: what a rule has between two slashes where that is not one fixed text, and how a text is taken apart
//! by one.
//!
//! A wildcard that takes slashes makes its pattern *span* segments: then everything from the first such wildcard's segment
//! to the last one's is one pattern.

use regex::Regex;

use super::filter::Filter;

/// A pattern with at least one wildcard. Patterns with the same tokens take the same texts.
#[derive(Clone, Debug)]
pub(super) struct SegmentPattern {
    tokens: Vec<Token>,
    how: How,
}

/// A part of a pattern. Texts and wildcards need not alternate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Text(String),
    /// `[^/]+`
    Any,
    /// `-?[0-9]+`
    Int,
    /// `-?[0-9.]+`
    Float,
    /// `.+?`, with slashes
    Path,
    Regex(String),
}

/// How a pattern is matched: the first of these that can.
#[derive(Clone, Debug)]
enum How {
    /// The only token is a wildcard.
    Alone,
    /// One wildcard between texts, or several that take anything.
    FromTheEnd,
    /// Wildcards of several kinds.
    Table,
    /// A regex is the only token.
    Whole(Regex),
    /// A regex among others; the groups of its wildcards.
    Groups(Regex, Vec<usize>),
}

#[cfg(test)]
thread_local! {
    /// How many patterns this thread has tried.
    pub(super) static TRIED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl PartialEq for SegmentPattern {
    fn eq(&self, other: &SegmentPattern) -> bool {
        self.tokens == other.tokens
    }
}

impl SegmentPattern {
    /// The pattern of these tokens; `filters` are those of its wildcards, in order.
    pub(super) fn new(
        tokens: Vec<Token>,
        filters: &[&Filter],
    ) -> Result<SegmentPattern, regex::Error> {
        let wildcards = || tokens.iter().filter(|token| !matches!(token, Token::Text(_)));
        let alone = tokens.len() == 1;
        let how = if wildcards().any(|token| matches!(token, Token::Regex(_))) {
            match filters.first().and_then(|filter| filter.whole()) {
                Some(whole) if alone => How::Whole(whole.clone()),
                _ => groups(&tokens)?,
            }
        } else if alone {
            How::Alone
        } else if wildcards().count() == 1 || wildcards().all(|token| *token == Token::Any) {
            How::FromTheEnd
        } else {
            How::Table
        };
        Ok(SegmentPattern { tokens, how })
    }

    /// The text that everything this pattern takes starts with.
    pub(super) fn first_text(&self) -> Option<&str> {
        self.tokens.first().and_then(Token::text)
    }

    /// The text that everything this pattern takes ends with.
    pub(super) fn last_text(&self) -> Option<&str> {
        self.tokens.last().and_then(Token::text)
    }

    /// Whether the pattern takes the text.
    pub(super) fn accepts(&self, text: &str) -> bool {
        #[cfg(test)]
        TRIED.set(TRIED.get() + 1);
        match &self.how {
            How::Whole(regex) | How::Groups(regex, _) => regex.is_match(text),
            _ => self.take(text, |_| Some(())).is_some(),
        }
    }

    /// Hands over what each wildcard takes of the text, in order, as Bottle's regex would divide it. `None`
    /// where the pattern does not take the text, or the receiver refuses. The time is linear in the text.
    pub(super) fn take<'a>(
        &self,
        text: &'a str,
        mut receive: impl FnMut(&'a str) -> Option<()>,
    ) -> Option<()> {
        match &self.how {
            How::Alone => self.tokens[0].takes(text).then(|| receive(text))?,
            How::FromTheEnd => {
                from_the_end(&self.tokens, text)?.into_iter().rev().try_for_each(receive)
            }
            How::Table => by_table(&self.tokens, text, receive),
            How::Whole(regex) => regex.is_match(text).then(|| receive(text))?,
            How::Groups(regex, groups) => {
                let found = regex.captures(text)?;
                groups.iter().try_for_each(|group| receive(found.get(*group)?.as_str()))
            }
        }
    }
}

impl Token {
    fn text(&self) -> Option<&str> {
        match self {
            Token::Text(text) => Some(text),
            _ => None,
        }
    }

    fn pattern(&self) -> String {
        match self {
            Token::Text(text) => regex::escape(text),
            Token::Any => "[^/]+".to_owned(),
            Token::Int => "-?[0-9]+".to_owned(),
            Token::Float => "-?[0-9.]+".to_owned(),
            Token::Path => "(?s:.+?)".to_owned(),
            Token::Regex(pattern) => pattern.clone(),
        }
    }

    /// Whether the wildcard repeats over this byte.
    fn repeats(&self, byte: u8) -> bool {
        match self {
            Token::Any => byte != b'/',
            Token::Int => byte.is_ascii_digit(),
            Token::Float => byte.is_ascii_digit() || byte == b'.',
            Token::Path => true,
            Token::Text(_) | Token::Regex(_) => false,
        }
    }

    fn signed(&self) -> bool {
        matches!(self, Token::Int | Token::Float)
    }

    /// Whether the wildcard takes the whole text, which has no slash unless it is a `path`'s.
    fn takes(&self, text: &str) -> bool {
        if !self.signed() {
            return !text.is_empty();
        }
        let text = text.strip_prefix('-').unwrap_or(text);
        !text.is_empty() && text.bytes().all(|byte| self.repeats(byte))
    }
}

fn groups(tokens: &[Token]) -> Result<How, regex::Error> {
    let name = |number: usize| format!("wildcard{number}_");
    let mut pattern = String::from(r"\A");
    let mut count = 0;
    for token in tokens {
        if token.text().is_some() {
            pattern.push_str(&token.pattern());
        } else {
            pattern.push_str(&format!("(?P<{}>{})", name(count), token.pattern()));
            count += 1;
        }
    }
    pattern.push_str(r"\z");
    let regex = Regex::new(&pattern)?;
    let group =
        |number| regex.capture_names().position(|known| known == Some(name(number).as_str()));
    let groups = (0..count).filter_map(group).collect();
    Ok(How::Groups(regex, groups))
}

/// What the wildcards take, the last one first: each text at its last possible place makes the wildcards
/// before it as long as they can be, which is what greedy wildcards do.
fn from_the_end<'a>(tokens: &[Token], text: &'a str) -> Option<Vec<&'a str>> {
    let mut found = Vec::with_capacity(tokens.len());
    let mut rest = text;
    for at in (0..tokens.len()).rev() {
        if let Token::Text(text) = &tokens[at] {
            rest = rest.strip_suffix(text.as_str())?;
            continue;
        }
        let start = match at.checked_sub(1).map(|before| &tokens[before]) {
            None => 0,
            // The first text is where the pattern starts.
            Some(Token::Text(first)) if at == 1 => {
                rest.strip_prefix(first.as_str()).map(|_| first.len())?
            }
            Some(Token::Text(before)) => {
                let last = rest.char_indices().next_back()?.0;
                rest[..last].rfind(before.as_str())? + before.len()
            }
            // Two wildcards side by side: the later one gets one character.
            Some(_) => rest.char_indices().next_back()?.0,
        };
        let value = &rest[start..];
        if !tokens[at].takes(value) {
            return None;
        }
        found.push(value);
        rest = &rest[..start];
    }
    rest.is_empty().then_some(found)
}

/// Backtracking would take time exponential in the wildcards; this notes, from the end, from which places
/// each token and those behind it can take the rest, and then reads the division off in one go.
fn by_table<'a>(
    tokens: &[Token],
    text: &'a str,
    mut receive: impl FnMut(&'a str) -> Option<()>,
) -> Option<()> {
    let bytes = text.as_bytes();
    let width = bytes.len() + 1;
    let mut table = vec![false; (tokens.len() + 1) * width];
    *table.last_mut()? = true;
    for (at, token) in tokens.iter().enumerate().rev() {
        let (here, behind) = table[at * width..].split_at_mut(width);
        if let Token::Text(text) = token {
            for place in 0..=bytes.len() {
                here[place] =
                    bytes[place..].starts_with(text.as_bytes()) && behind[place + text.len()];
            }
            continue;
        }
        let mut repeated = false;
        for place in (0..bytes.len()).rev() {
            let unsigned = repeated;
            repeated = token.repeats(bytes[place]) && (behind[place + 1] || repeated);
            let signed = token.signed() && bytes[place] == b'-' && unsigned;
            here[place] = (repeated || signed) && text.is_char_boundary(place);
        }
    }
    if !table[0] {
        return None;
    }
    let mut start = 0;
    for (at, token) in tokens.iter().enumerate() {
        if let Token::Text(text) = token {
            start += text.len();
            continue;
        }
        let sign = usize::from(token.signed() && bytes[start] == b'-');
        let repeated =
            bytes[start + sign..].iter().take_while(|byte| token.repeats(**byte)).count();
        let mut ends = start + sign + 1..=start + sign + repeated;
        let goes_on = |end: &usize| table[(at + 1) * width + *end];
        let end = match token {
            Token::Path => ends.find(goes_on)?,
            _ => ends.rfind(goes_on)?,
        };
        receive(&text[start..end])?;
        start = end;
    }
    Some(())
}
