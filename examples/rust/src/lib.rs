//! A safe wrapper of the C library, without dependencies. Copy it, and add what you need of `tdtdecode.h`.

mod ffi;

use std::ffi::{CStr, CString};
use std::fmt;
use std::mem::{size_of, zeroed};
use std::os::raw::c_char;
use std::path::Path;
use std::ptr::{null, null_mut, NonNull};
use std::slice;

/// What the library said of a call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub status: i32,
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.message)
    }
}

impl std::error::Error for Error {}

fn text_of(text: *const c_char) -> String {
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn check(status: i32) -> Result<(), Error> {
    match status {
        0 => Ok(()),
        _ => Err(Error { status, message: text_of(unsafe { ffi::tdt_error_message() }) }),
    }
}

/// A model. Threads may share it.
pub struct Model {
    pointer: NonNull<ffi::tdt_model>,
    encoder_size: usize,
    frame_seconds: f64,
}

// The library's objects never change, and any number of threads may use them.
unsafe impl Send for Model {}
unsafe impl Sync for Model {}

/// Which tokens a search may emit. Threads may share it.
pub struct Allow(NonNull<ffi::tdt_allow>);

unsafe impl Send for Allow {}
unsafe impl Sync for Allow {}

impl Drop for Allow {
    fn drop(&mut self) {
        unsafe { ffi::tdt_allow_free(self.0.as_ptr()) }
    }
}

/// How to search. By default greedily, and with every token.
#[derive(Clone, Copy, Default)]
pub struct Search<'a> {
    beam: Option<Beam>,
    allow: Option<&'a Allow>,
}

#[derive(Clone, Copy)]
struct Beam {
    size: u16,
    nbest: u16,
}

impl<'a> Search<'a> {
    pub fn greedy() -> Self {
        Self::default()
    }

    /// Keeps `size` hypotheses, and returns up to `nbest` of them.
    pub fn beam(size: u16, nbest: u16) -> Self {
        Search { beam: Some(Beam { size, nbest }), allow: None }
    }

    /// Emits only what may be emitted.
    pub fn allow(self, allow: &'a Allow) -> Self {
        Search { allow: Some(allow), ..self }
    }

    fn options(&self) -> ffi::tdt_search {
        // Zero is the default of every option.
        let mut options: ffi::tdt_search = unsafe { zeroed() };
        options.size = size_of::<ffi::tdt_search>();
        if let Some(beam) = self.beam {
            options.strategy = 1;
            options.beam_size = beam.size.into();
            options.nbest = beam.nbest.into();
        }
        options.allow = self.allow.map_or(null(), |allow| allow.0.as_ptr() as *const _);
        options
    }
}

/// A token sequence; every list has an entry for each token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hypothesis {
    pub tokens: Vec<i32>,
    /// The frame of encoder output at which each token starts, from the start of the stream.
    pub frames: Vec<i32>,
    pub durations: Vec<i32>,
    pub token_logprobs: Vec<f32>,
    pub duration_logprobs: Vec<f32>,
    pub score: f64,
}

impl Hypothesis {
    /// Adds what the stream's next chunk gave.
    pub fn extend(&mut self, next: &Hypothesis) {
        self.tokens.extend(&next.tokens);
        self.frames.extend(&next.frames);
        self.durations.extend(&next.durations);
        self.token_logprobs.extend(&next.token_logprobs);
        self.duration_logprobs.extend(&next.duration_logprobs);
        self.score = next.score;
    }
}

/// A word, with its start and end in seconds and its confidence from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    pub text: String,
    pub start: f64,
    pub end: f64,
    pub confidence: f32,
}

/// The state of a stream between two chunks: a value, which stays as it is.
pub struct State(NonNull<ffi::tdt_state>);

unsafe impl Send for State {}
unsafe impl Sync for State {}

impl Drop for State {
    fn drop(&mut self) {
        unsafe { ffi::tdt_state_free(self.0.as_ptr()) }
    }
}

struct Decoded(NonNull<ffi::tdt_result>);

impl Drop for Decoded {
    fn drop(&mut self) {
        unsafe { ffi::tdt_result_free(self.0.as_ptr()) }
    }
}

struct Text(NonNull<ffi::tdt_text>);

impl Drop for Text {
    fn drop(&mut self) {
        unsafe { ffi::tdt_text_free(self.0.as_ptr()) }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        unsafe { ffi::tdt_model_free(self.pointer.as_ptr()) }
    }
}

impl Model {
    /// Opens a file that `tdtdecode pack` wrote.
    pub fn open(path: impl AsRef<Path>) -> Result<Model, Error> {
        let path = CString::new(path.as_ref().to_string_lossy().as_bytes())
            .map_err(|_| Error { status: 1, message: "the path has a zero byte".into() })?;
        let mut model = null_mut();
        check(unsafe { ffi::tdt_model_open(path.as_ptr(), null(), &mut model) })?;
        let mut opened =
            Model { pointer: NonNull::new(model).expect("a model"), encoder_size: 0, frame_seconds: 0.0 };
        let mut info: ffi::tdt_model_info = unsafe { zeroed() };
        info.size = size_of::<ffi::tdt_model_info>();
        check(unsafe { ffi::tdt_model_get_info(model, &mut info) })?;
        opened.encoder_size = info.encoder_size as usize;
        opened.frame_seconds = info.frame_seconds;
        Ok(opened)
    }

    /// E, the numbers of an encoder frame.
    pub fn encoder_size(&self) -> usize {
        self.encoder_size
    }

    /// The duration of an encoder frame.
    pub fn frame_seconds(&self) -> f64 {
        self.frame_seconds
    }

    /// The tokens whose letters are all of some Unicode scripts, such as `["latin", "common"]`.
    pub fn allow_scripts(&self, names: &[&str]) -> Result<Allow, Error> {
        let names = names
            .iter()
            .map(|&name| CString::new(name))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error { status: 1, message: "the name of a script has a zero byte".into() })?;
        let pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        self.made_allow(|model, allow| unsafe {
            ffi::tdt_allow_scripts(model, pointers.as_ptr(), pointers.len(), allow)
        })
    }

    /// The tokens of a list, and no others.
    pub fn allow_only(&self, tokens: &[i32]) -> Result<Allow, Error> {
        self.made_allow(|model, allow| unsafe { ffi::tdt_allow_only(model, tokens.as_ptr(), tokens.len(), allow) })
    }

    /// All tokens but those of a list.
    pub fn allow_except(&self, tokens: &[i32]) -> Result<Allow, Error> {
        self.made_allow(|model, allow| unsafe { ffi::tdt_allow_except(model, tokens.as_ptr(), tokens.len(), allow) })
    }

    fn made_allow(
        &self,
        make: impl FnOnce(*const ffi::tdt_model, *mut *mut ffi::tdt_allow) -> i32,
    ) -> Result<Allow, Error> {
        let mut allow = null_mut();
        check(make(self.pointer.as_ptr(), &mut allow))?;
        Ok(Allow(NonNull::new(allow).expect("what may be emitted")))
    }

    /// Decodes one utterance, `frames` [E, T]: the hypotheses, best first.
    pub fn decode(&self, frames: &[f32], search: Search) -> Result<Vec<Hypothesis>, Error> {
        Ok(self.run(frames, search, None, true)?.0)
    }

    /// Decodes the next chunk [E, T] of a stream: its new tokens, and the state to go on from.
    pub fn decode_chunk(
        &self,
        frames: &[f32],
        search: Search,
        state: Option<&State>,
    ) -> Result<(Hypothesis, State), Error> {
        let (mut hypotheses, state) = self.run(frames, search, state, false)?;
        Ok((hypotheses.swap_remove(0), state.expect("a state to go on from")))
    }

    /// Decodes the last chunk of a stream: what is left of each hypothesis, best first.
    pub fn decode_last_chunk(
        &self,
        frames: &[f32],
        search: Search,
        state: Option<&State>,
    ) -> Result<Vec<Hypothesis>, Error> {
        Ok(self.run(frames, search, state, true)?.0)
    }

    fn run(
        &self,
        frames: &[f32],
        search: Search,
        state: Option<&State>,
        last: bool,
    ) -> Result<(Vec<Hypothesis>, Option<State>), Error> {
        let count = frames.len() / self.encoder_size;
        if count * self.encoder_size != frames.len() || count > 1 << 30 {
            let message = format!("frames must be [E, T] with E = {}", self.encoder_size);
            return Err(Error { status: 1, message });
        }
        let input = ffi::tdt_input {
            size: size_of::<ffi::tdt_input>(),
            data: frames.as_ptr().cast(),
            type_: 0,
            rows: 1,
            elements: self.encoder_size as i32,
            frames: count as i32,
            lengths: null(),
            row_stride: frames.len() as i64,
            element_stride: count as i64,
            frame_stride: 1,
        };
        let options = search.options();
        let before = [state.map_or(null(), |state| state.0.as_ptr() as *const _)];
        let (mut result, mut after) = (null_mut(), null_mut());
        check(unsafe {
            ffi::tdt_decode_chunk(
                self.pointer.as_ptr(),
                &input,
                &options,
                before.as_ptr(),
                last.into(),
                &mut result,
                &mut after,
            )
        })?;
        let next = NonNull::new(after).map(State);
        let decoded = Decoded(NonNull::new(result).expect("a result"));
        let ranks = unsafe { ffi::tdt_result_hypotheses(result, 0) };
        let hypotheses = (0..ranks).map(|rank| decoded.hypothesis(rank)).collect::<Result<_, _>>()?;
        Ok((hypotheses, next))
    }

    /// The text of a hypothesis, and its words.
    pub fn text(&self, hypothesis: &Hypothesis) -> Result<(String, Vec<Word>), Error> {
        let count = hypothesis.tokens.len();
        let lengths = [
            hypothesis.frames.len(),
            hypothesis.durations.len(),
            hypothesis.token_logprobs.len(),
            hypothesis.duration_logprobs.len(),
        ];
        if lengths != [count; 4] {
            return Err(Error { status: 1, message: "a hypothesis has lists of different lengths".into() });
        }
        let given = ffi::tdt_hypothesis {
            size: size_of::<ffi::tdt_hypothesis>(),
            count,
            tokens: hypothesis.tokens.as_ptr(),
            frames: hypothesis.frames.as_ptr(),
            durations: hypothesis.durations.as_ptr(),
            token_logprobs: hypothesis.token_logprobs.as_ptr(),
            duration_logprobs: hypothesis.duration_logprobs.as_ptr(),
            confidence: null(),
            score: hypothesis.score,
        };
        let mut made = null_mut();
        check(unsafe { ffi::tdt_text_new(self.pointer.as_ptr(), &given, null(), &mut made) })?;
        let text = Text(NonNull::new(made).expect("a text"));
        let words = (0..unsafe { ffi::tdt_text_words(made) }).map(|index| text.word(index)).collect::<Result<_, _>>()?;
        Ok((text_of(unsafe { ffi::tdt_text_string(made) }), words))
    }
}

impl Decoded {
    fn hypothesis(&self, rank: i32) -> Result<Hypothesis, Error> {
        let mut view: ffi::tdt_hypothesis = unsafe { zeroed() };
        view.size = size_of::<ffi::tdt_hypothesis>();
        check(unsafe { ffi::tdt_result_hypothesis(self.0.as_ptr(), 0, rank, &mut view) })?;
        // The lists belong to the result, so they are copied. They are NULL where there are no tokens.
        fn copied<T: Copy>(list: *const T, count: usize) -> Vec<T> {
            if count == 0 {
                return Vec::new();
            }
            unsafe { slice::from_raw_parts(list, count) }.to_vec()
        }
        Ok(Hypothesis {
            tokens: copied(view.tokens, view.count),
            frames: copied(view.frames, view.count),
            durations: copied(view.durations, view.count),
            token_logprobs: copied(view.token_logprobs, view.count),
            duration_logprobs: copied(view.duration_logprobs, view.count),
            score: view.score,
        })
    }
}

impl Text {
    fn word(&self, index: usize) -> Result<Word, Error> {
        let mut word: ffi::tdt_word = unsafe { zeroed() };
        word.size = size_of::<ffi::tdt_word>();
        check(unsafe { ffi::tdt_text_word(self.0.as_ptr(), index, &mut word) })?;
        Ok(Word { text: text_of(word.text), start: word.start, end: word.end, confidence: word.confidence })
    }
}
