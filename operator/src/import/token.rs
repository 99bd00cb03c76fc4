//! What services hand out to let somebody in, by how it begins. Pure.

/// Beginnings of what services hand out.
const BEGINNINGS: [&str; 40] = [
    "sk-",
    "sk_",
    "pk_",
    "rk_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxa-",
    "xoxb-",
    "xoxe-",
    "xoxp-",
    "xoxs-",
    "xapp-",
    "AKIA",
    "ASIA",
    "AIza",
    "eyJ",
    "ntn_",
    "secret_",
    "hf_",
    "ya29.",
    "SG.",
    "dop_v1_",
    "lin_api_",
    "figd_",
    "sbp_",
    "gsk_",
    "shpat_",
    "ATATT",
    "glsa_",
    "pcsk_",
    "dckr_pat_",
    "hvs.",
    "whsec_",
    "lsv2_",
    "AGE-SECRET-KEY-",
];

/// Whether it begins as one.
pub fn begins(value: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| value.starts_with(beginning))
}

/// Whether it begins as one, and goes on as no word does.
pub fn is_one(word: &str) -> bool {
    let goes_on = |rest: &str| rest.len() >= 6 && rest.bytes().any(|byte| byte.is_ascii_digit());
    BEGINNINGS.iter().filter_map(|beginning| word.strip_prefix(beginning)).any(goes_on)
}
