//! The limit of any preparation of gzipped volumes: libdeflate alone inflates the files, on as many threads.
//!
//! `inflate JOBS FILE...`

use rayon::prelude::*;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let jobs = arguments.next().unwrap_or_default().parse()?;
    let files: Vec<String> = arguments.collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build()?;
    let inflate = |file: &String| -> anyhow::Result<usize> {
        let packed = std::fs::read(file)?;
        let length = packed.last_chunk().map_or(0, |size| u32::from_le_bytes(*size) as usize);
        let mut bytes = vec![0; length];
        Ok(libdeflater::Decompressor::new().gzip_decompress(&packed, &mut bytes)?)
    };
    let bytes = pool.install(|| files.par_iter().with_max_len(1).map(inflate).sum::<anyhow::Result<usize>>())?;
    println!("{bytes} bytes");
    Ok(())
}
