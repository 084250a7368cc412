//! The words of the recording are those that the Python package finds, whole and in chunks, in one thread and in many.
use std::fs;
use std::path::PathBuf;
use std::thread;

use tdtdecode::{Hypothesis, Model, Search};

fn recorded(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../recorded").join(name)
}

fn frames() -> Vec<f32> {
    let bytes = fs::read(recorded("encoder_output.f32")).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn lines(model: &Model, hypothesis: &Hypothesis) -> String {
    let (_, words) = model.text(hypothesis).unwrap();
    words.iter().map(|word| format!("{:.2} {:.2} {}\n", word.start, word.end, word.text)).collect()
}

#[test]
fn words_are_those_of_the_python_package() {
    let model = Model::open(recorded("demo.tdt")).unwrap();
    let expected = fs::read_to_string(recorded("words.txt")).unwrap();
    for search in [Search::greedy(), Search::beam(4, 2)] {
        let found = model.decode(&frames(), search).unwrap();
        assert_eq!(lines(&model, &found[0]), expected);
    }
}

#[test]
fn chunks_give_the_same() {
    let model = Model::open(recorded("demo.tdt")).unwrap();
    let (all, size) = (frames(), model.encoder_size());
    let length = all.len() / size;
    for search in [Search::greedy(), Search::beam(4, 1)] {
        let (mut whole, mut state) = (Hypothesis::default(), None);
        for first in (0..length).step_by(10) {
            let last = length.min(first + 10);
            let chunk: Vec<f32> =
                (0..size).flat_map(|element| all[element * length + first..element * length + last].to_vec()).collect();
            if last == length {
                whole.extend(&model.decode_last_chunk(&chunk, search, state.as_ref()).unwrap()[0]);
            } else {
                let (found, next) = model.decode_chunk(&chunk, search, state.as_ref()).unwrap();
                whole.extend(&found);
                state = Some(next);
            }
        }
        assert_eq!(whole.tokens, model.decode(&all, search).unwrap()[0].tokens);
        assert_eq!(lines(&model, &whole), fs::read_to_string(recorded("words.txt")).unwrap());
    }
}

#[test]
fn tokens_that_may_not_be_emitted_are_not() {
    let model = Model::open(recorded("demo.tdt")).unwrap();
    let tokens = |search| model.decode(&frames(), search).unwrap().swap_remove(0).tokens;
    let free = tokens(Search::greedy());
    let without = model.allow_except(&free[..1]).unwrap();
    for search in [Search::greedy().allow(&without), Search::beam(4, 1).allow(&without)] {
        assert!(!tokens(search).is_empty() && !tokens(search).contains(&free[0]));
    }
    let only = model.allow_only(&free[..1]).unwrap();
    assert!(tokens(Search::greedy().allow(&only)).iter().all(|&token| token == free[0]));
    let latin = model.allow_scripts(&["latin", "common"]).unwrap();
    assert_eq!(tokens(Search::greedy().allow(&latin)), free);
    assert!(model.allow_scripts(&["klingon"]).err().unwrap().message.contains("klingon"));
}

#[test]
fn threads_share_a_model() {
    let model = Model::open(recorded("demo.tdt")).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(!model.decode(&frames(), Search::greedy()).unwrap()[0].tokens.is_empty()));
        }
    });
}

#[test]
fn errors_say_what_is_wrong() {
    let error = Model::open("/nowhere/model.tdt").err().unwrap();
    assert!(error.status == 2 && error.message.contains("/nowhere/model.tdt"));
    let model = Model::open(recorded("demo.tdt")).unwrap();
    assert!(model.decode(&[0.0; 3], Search::greedy()).is_err());
    assert!(model.decode(&[], Search::beam(2000, 1)).err().unwrap().message.contains("beam_size"));
}
