//! What tokens cost. Prices come with a library's data; a model that it does not know has no price, which is not the same as
//! costing nothing.

use genai_prices::{PriceRequest, UsageKey};

use crate::message::Usage;

/// Decodes the price list, which the first use would otherwise wait for.
pub fn load() {
    let _ = genai_prices::Calculator::bundled();
}

/// Dollars, where the price of exactly this model is known.
pub fn price(list: &str, model: &str, usage: Usage) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "token counts stay far below 2^52")]
    let count = |tokens: u64| tokens as f64;
    // The library's input includes what was read from and written to the cache; the API's does not.
    let input = usage.total().saturating_sub(usage.output_tokens);
    let usage = genai_prices::Usage::from([
        (UsageKey::INPUT_TOKENS, count(input)),
        (UsageKey::OUTPUT_TOKENS, count(usage.output_tokens)),
        (UsageKey::CACHE_READ_TOKENS, count(usage.cache_read_input_tokens)),
        (UsageKey::CACHE_WRITE_TOKENS, count(usage.cache_creation_input_tokens)),
    ]);
    let request = PriceRequest::new(model, &usage).with_provider_id(list);
    genai_prices::calculate(&request).ok().map(|price| price.total_price)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(count: u64) -> Usage {
        Usage { input_tokens: count, ..Usage::default() }
    }

    #[test]
    fn an_unknown_price_is_not_zero() {
        assert_eq!(price("anthropic", "stand-in", tokens(1_000)), None);
        assert_eq!(price("anthropic", "claude-fable-5-2", tokens(1_000)), None);
        assert!(price("anthropic", "claude-haiku-5-5", tokens(1_000)).is_some_and(|dollars| dollars > 0.0));
    }

    #[test]
    fn reading_the_cache_is_cheaper_than_reading_anew() {
        let cached = Usage { cache_read_input_tokens: 1_000_000, ..Usage::default() };
        let dollars = |usage| price("anthropic", "claude-haiku-5-5", usage).expect("known");
        assert!(dollars(cached) < dollars(tokens(1_000_000)));
    }
}
