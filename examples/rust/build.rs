//! Finds the C library: in the folder that TDTDECODE_LIB names, or where `python -m tdtdecode.capi` says.
use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=TDTDECODE_LIB");
    let folder = env::var("TDTDECODE_LIB").unwrap_or_else(|_| {
        let output = Command::new("python3")
            .args(["-m", "tdtdecode.capi", "--libs"])
            .output()
            .expect("set TDTDECODE_LIB to the folder of the library, or install the Python package");
        let flags = String::from_utf8(output.stdout).expect("flags are text");
        let flag = flags.split_whitespace().find(|flag| flag.starts_with("-L"));
        flag.expect("set TDTDECODE_LIB to the folder of the library")[2..].to_string()
    });
    println!("cargo:rustc-link-search=native={folder}");
    println!("cargo:rustc-link-lib=dylib=tdtdecode");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
}
