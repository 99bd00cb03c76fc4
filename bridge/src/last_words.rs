//! Which line of many says why something failed. Pure.

/// Lines that every failure of npm ends with, and that tell nothing of it.
const NOISE: [&str; 5] = [
    "A complete log of this run",
    "Note that you can also install from a",
    "tarball, folder, http url, or git",
    "npm warn",
    "npm notice",
];

/// How the lines of npm, and of what it runs, begin.
const MARKS: [&str; 4] = ["npm error", "npm ERR!", "gyp ERR! stack", "gyp ERR!"];

/// Without what every line of its program begins with.
pub fn bare(line: &str) -> &str {
    MARKS.iter().fold(line.trim(), |line, mark| line.strip_prefix(mark).unwrap_or(line).trim_start())
}

/// Whether a line tells anything: what stands behind every failure of its program, brackets, and the frames of a stack do not.
pub fn tells(line: &str) -> bool {
    let bare = bare(line);
    let has_words =
        bare.split_whitespace().any(|word| word.bytes().any(|byte| !byte.is_ascii_digit() && !byte.is_ascii_punctuation()));
    has_words && !bare.starts_with("at ") && NOISE.iter().all(|noise| !line.contains(noise))
}

/// Whether a line names an error.
pub fn names_an_error(line: &str) -> bool {
    let line = bare(line);
    let first = line.split(':').next().unwrap_or_default();
    let of_a_class = first.split_whitespace().last().is_some_and(|word| word.ends_with("Error") || word.ends_with("Exception"));
    let lower = line.to_ascii_lowercase();
    let says_so = ["error:", "error ", "[error]", "fatal", "panic", "[cause]:"].iter().any(|word| lower.starts_with(word));
    // Who complains: `server: error: …`; or a line of a log.
    let of_a_level = lower.contains(": error:") || [" ERROR ", " FATAL ", " CRITICAL "].iter().any(|level| line.contains(level));
    tells(line) && line.contains(':') && (of_a_class || says_so || of_a_level)
}
