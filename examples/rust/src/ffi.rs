//! What of `tdtdecode.h` the wrapper uses.
#![allow(non_camel_case_types)]

use std::os::raw::{c_char, c_void};

#[repr(C)]
pub struct tdt_model {
    _private: [u8; 0],
}
#[repr(C)]
pub struct tdt_result {
    _private: [u8; 0],
}
#[repr(C)]
pub struct tdt_allow {
    _private: [u8; 0],
}
#[repr(C)]
pub struct tdt_state {
    _private: [u8; 0],
}
#[repr(C)]
pub struct tdt_text {
    _private: [u8; 0],
}

#[repr(C)]
pub struct tdt_model_info {
    pub size: usize,
    pub vocab_size: i32,
    pub blank: i32,
    pub encoder_size: i32,
    pub duration_count: i32,
    pub durations: *const i32,
    pub frame_seconds: f64,
    pub sample_rate: i32,
    pub mel_bins: i32,
    pub subsampling_factor: i32,
    pub reserved: i32,
    pub features: *const c_char,
    pub normalize: *const c_char,
    pub instruction_set: *const c_char,
}

#[repr(C)]
pub struct tdt_input {
    pub size: usize,
    pub data: *const c_void,
    pub type_: i32,
    pub rows: i32,
    pub elements: i32,
    pub frames: i32,
    pub lengths: *const i32,
    pub row_stride: i64,
    pub element_stride: i64,
    pub frame_stride: i64,
}

#[repr(C)]
pub struct tdt_search {
    pub size: usize,
    pub strategy: i32,
    pub threads: i32,
    pub max_symbols: i32,
    pub blank_penalty: f32,
    pub beam_size: i32,
    pub nbest: i32,
    pub threshold: f64,
    pub temperature: f32,
    pub blank_mode: i32,
    pub pruning_mode: i32,
    pub confidence: i32,
    pub confidence_alpha: f64,
    pub confidence_normalization: i32,
    pub ngram_weight: f32,
    pub ngram: *const c_void,
    pub phrases: *const c_void,
    pub row_phrases: *const *const c_void,
    pub allow: *const tdt_allow,
    pub row_allow: *const *const tdt_allow,
}

#[repr(C)]
pub struct tdt_hypothesis {
    pub size: usize,
    pub count: usize,
    pub tokens: *const i32,
    pub frames: *const i32,
    pub durations: *const i32,
    pub token_logprobs: *const f32,
    pub duration_logprobs: *const f32,
    pub confidence: *const f32,
    pub score: f64,
}

#[repr(C)]
pub struct tdt_word {
    pub size: usize,
    pub text: *const c_char,
    pub start: f64,
    pub end: f64,
    pub confidence: f32,
    pub space_before: i32,
    pub first: usize,
    pub last: usize,
}

extern "C" {
    pub fn tdt_error_message() -> *const c_char;
    pub fn tdt_model_open(path: *const c_char, options: *const c_void, model: *mut *mut tdt_model) -> i32;
    pub fn tdt_model_free(model: *mut tdt_model);
    pub fn tdt_model_get_info(model: *const tdt_model, info: *mut tdt_model_info) -> i32;
    pub fn tdt_allow_only(
        model: *const tdt_model,
        tokens: *const i32,
        count: usize,
        allow: *mut *mut tdt_allow,
    ) -> i32;
    pub fn tdt_allow_except(
        model: *const tdt_model,
        tokens: *const i32,
        count: usize,
        allow: *mut *mut tdt_allow,
    ) -> i32;
    pub fn tdt_allow_scripts(
        model: *const tdt_model,
        names: *const *const c_char,
        count: usize,
        allow: *mut *mut tdt_allow,
    ) -> i32;
    pub fn tdt_allow_free(allow: *mut tdt_allow);
    pub fn tdt_decode_chunk(
        model: *const tdt_model,
        input: *const tdt_input,
        search: *const tdt_search,
        before: *const *const tdt_state,
        last: i32,
        result: *mut *mut tdt_result,
        after: *mut *mut tdt_state,
    ) -> i32;
    pub fn tdt_state_free(state: *mut tdt_state);
    pub fn tdt_result_free(result: *mut tdt_result);
    pub fn tdt_result_hypotheses(result: *const tdt_result, row: i32) -> i32;
    pub fn tdt_result_hypothesis(result: *const tdt_result, row: i32, rank: i32, hypothesis: *mut tdt_hypothesis)
        -> i32;
    pub fn tdt_text_new(
        model: *const tdt_model,
        hypothesis: *const tdt_hypothesis,
        options: *const c_void,
        text: *mut *mut tdt_text,
    ) -> i32;
    pub fn tdt_text_free(text: *mut tdt_text);
    pub fn tdt_text_string(text: *const tdt_text) -> *const c_char;
    pub fn tdt_text_words(text: *const tdt_text) -> usize;
    pub fn tdt_text_word(text: *const tdt_text, index: usize, word: *mut tdt_word) -> i32;
}
