//! Prints the words of a recording with their times, from recorded encoder output.
use std::error::Error;

use tdtdecode::{Model, Search};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (model, frames) = match (arguments.next(), arguments.next()) {
        (Some(model), Some(frames)) => (model, frames),
        _ => return Err("usage: tdtdecode-example MODEL.tdt FRAMES.f32".into()),
    };
    let model = Model::open(model)?;
    let bytes = std::fs::read(frames)?;
    let frames: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let best = model.decode(&frames, Search::greedy())?.swap_remove(0);
    for word in model.text(&best)?.1 {
        println!("{:.2} {:.2} {}", word.start, word.end, word.text);
    }
    Ok(())
}
