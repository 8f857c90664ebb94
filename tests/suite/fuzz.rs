//! The properties of fuzz/properties.rs hold for the inputs that libFuzzer found, and for random changes of them.

use std::path::Path;

use fastrand::Rng;

use properties::Service;

#[path = "../../fuzz/properties.rs"]
mod properties;

/// Checks a property on a target's corpus and on this many inputs derived from it.
fn holds(target: &str, made: usize, mut property: impl FnMut(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("a corpus").map(|file| file.unwrap().path()).collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let mut random = Rng::with_seed(1);
    let made: Vec<_> = (0..made).map(|_| changed(&corpus, &mut random)).collect();
    for input in corpus.iter().chain(&made) {
        let shown = Shown(input);
        property(shown.0);
    }
}

/// Prints the input at which a property fails.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input: b\"{}\"", self.0.escape_ascii());
        }
    }
}

/// Removes or repeats pieces of an input, or inserts pieces of another.
fn changed(corpus: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let mut input = corpus[random.usize(..corpus.len())].clone();
    for _ in 0..random.usize(1..5) {
        let other = &corpus[random.usize(..corpus.len())];
        let start = random.usize(..=other.len());
        let piece = &other[start..(start + random.usize(..16)).min(other.len())];
        let at = random.usize(..=input.len());
        let end = (at + random.usize(..16)).min(input.len());
        match random.u8(..3) {
            0 => drop(input.splice(at..end, piece.iter().copied())),
            1 => drop(input.splice(at..at, input[at..end].to_vec())),
            _ => input[at..end].iter_mut().take(1).for_each(|byte| *byte = random.u8(..)),
        }
    }
    input
}

#[test]
fn a_code_is_written_as_it_was_read_and_a_link_that_nobody_made_opens_nothing() {
    holds("code", 20_000, properties::code);
}

#[test]
fn each_line_of_a_list_is_accounted_for() {
    holds("list", 5_000, properties::list);
}

#[test]
fn no_request_fails_and_no_refusal_tells_a_secret() {
    let mut service = Service::start();
    holds("request", 1_000, |input| service.request(input));
}

#[test]
fn what_lambda_gets_as_a_request_is_answered() {
    let mut service = Service::start();
    holds("event", 1_000, |input| service.event(input));
}

#[test]
fn a_setting_that_is_wrong_is_named_without_its_secret() {
    holds("settings", 5_000, properties::settings);
}
