//! What others write (a container's last lines, a server's errors) without the secrets that they were given. Pure.
//!
//! The values themselves are not kept: of each line of a value only its length and a hash that means nothing outside this process.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, LazyLock},
};

/// The shortest line that is masked, in bytes. Shorter ones are words like `true` and `5432`: to replace them would garble messages and hide
/// nothing.
const SHORTEST: usize = 6;
/// The longest: a message quotes no more than that of anybody.
const LONGEST: usize = 1_024;
/// The most lines of one value: a bundle of certificates is no password.
const LINES: usize = 64;
/// The most values of before that a mask keeps: some dozens of rotations.
const MOST: usize = 1_024;
/// What stands in the place of a value.
const MASKED: &str = "***";

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// By what a text is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print {
    first: u8,
    length: usize,
    hash: u64,
}

/// The lines of a value that are long enough to be masked.
pub fn prints(value: &[u8]) -> Vec<Print> {
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let worth_it = lines.filter(|line| (SHORTEST..=LONGEST).contains(&line.len()));
    worth_it.take(LINES).map(|line| Print { first: line[0], length: line.len(), hash: HASHER.hash_one(line) }).collect()
}

/// Values that are not to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// By length.
    hashes: BTreeMap<usize, HashSet<u64>>,
    /// The first bytes: a bit for each. Most places of a text begin nothing.
    first: [u64; 4],
}

impl Mask {
    /// Hides nothing.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Hides what this one hides, and what a former one hid: pods outlive the edit that takes a Secret away from them. Where that is too much,
    /// what the former one hid is forgotten.
    pub fn with_former(self, former: Option<Arc<Self>>) -> Arc<Self> {
        let Some(former) = former else { return Arc::new(self) };
        if former.hides_all_of(&self) {
            return former;
        }
        let all = self.clone().and(&former);
        Arc::new(if all.len() > MOST { self } else { all })
    }

    /// Hides what the other one hides, too.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (length, hashes) in &other.hashes {
            self.hashes.entry(*length).or_default().extend(hashes);
        }
        self.first.iter_mut().zip(other.first).for_each(|(bits, more)| *bits |= more);
        self
    }

    /// Whether it hides whatever the other one does.
    pub fn hides_all_of(&self, other: &Self) -> bool {
        other.hashes.iter().all(|(length, hashes)| self.hashes.get(length).is_some_and(|known| hashes.is_subset(known)))
    }

    fn len(&self) -> usize {
        self.hashes.values().map(HashSet::len).sum()
    }

    fn begins(&self, byte: u8) -> bool {
        self.first[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    /// The text with `***` in the place of each value, the longest first.
    pub fn apply(&self, text: String) -> String {
        if self.is_empty() {
            return text;
        }
        let bytes = text.as_bytes();
        let (mut masked, mut kept, mut at) = (String::new(), 0, 0);
        while at < bytes.len() {
            if !self.begins(bytes[at]) {
                at += 1;
                continue;
            }
            let hidden = |(length, hashes): &(&usize, &HashSet<u64>)| {
                bytes.get(at..at + **length).is_some_and(|window| hashes.contains(&HASHER.hash_one(window)))
            };
            // A value is text, or is not found in one: where it begins and ends, a character does.
            match self.hashes.iter().rev().find(hidden).filter(|_| text.is_char_boundary(at)) {
                Some((length, _)) if text.is_char_boundary(at + length) => {
                    masked.push_str(&text[kept..at]);
                    masked.push_str(MASKED);
                    at += length;
                    kept = at;
                }
                _ => at += 1,
            }
        }
        if kept == 0 {
            return text;
        }
        masked.push_str(&text[kept..]);
        masked
    }
}

impl FromIterator<Print> for Mask {
    fn from_iter<T: IntoIterator<Item = Print>>(prints: T) -> Self {
        let mut mask = Self::default();
        for print in prints {
            mask.hashes.entry(print.length).or_default().insert(print.hash);
            mask.first[usize::from(print.first >> 6)] |= 1 << (print.first & 63);
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(values: &[&str]) -> Mask {
        values.iter().flat_map(|value| prints(value.as_bytes())).collect()
    }

    #[test]
    fn a_value_is_masked_wherever_it_stands_and_nothing_else() {
        let mask = mask(&["sk-live-1", "päss wörd\n", "sk-live-1-and-more"]);
        let told = |text: &str| mask.apply(text.to_owned());
        assert_eq!(told("login failed for sk-live-1"), "login failed for ***");
        assert_eq!(told("sk-live-1sk-live-1, päss wörd!"), "******, ***!");
        assert_eq!(told("key=sk-live-1-and-more"), "key=***", "the longest that fits");
        assert_eq!(told("sk-live-2 of ä"), "sk-live-2 of ä");
        assert_eq!(Mask::default().apply("sk-live-1".into()), "sk-live-1");
    }

    #[test]
    fn what_was_hidden_stays_so() {
        let (old, new) = (Arc::new(mask(&["first-token"])), || mask(&["second-token"]));
        let both = new().with_former(Some(Arc::clone(&old)));
        assert_eq!(both.apply("first-token second-token".into()), "*** ***");
        assert!(Arc::ptr_eq(&new().with_former(Some(Arc::clone(&both))), &both), "nothing is new");
        assert_eq!(*new().with_former(None), new());
        let many: Vec<_> = (0..MOST).map(|number| format!("token-{number:04}")).collect();
        let many = Arc::new(mask(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!(*new().with_former(Some(many)), new(), "too many are forgotten");
    }

    #[test]
    fn each_line_of_a_value_counts_and_words_do_not() {
        let mask = mask(&["-----BEGIN KEY-----\n  abcdefgh  \nxyz\n", "true", "5432"]);
        assert_eq!(mask.apply("abcdefgh xyz true 5432".into()), "*** xyz true 5432");
    }
}
