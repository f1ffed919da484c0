//! Launches of `kernels/gather_lists.cu`: candidate lists from the paths of beams.

crate::kernels! {
    in "gather_lists";

    /// Writes the lists of each request, best beam first.
    fn gather_lists(
        rules: Ptr<u32>,
        progress: Ptr<u32>,
        beams: Ptr<u32>,
        sums: Ptr<f64>,
        rows: Ptr<u32>,
        chosen: Ptr<u32>,
        chosen_ln_z: Ptr<f64>,
        counts: PtrMut<u32>,
        items: PtrMut<u32>,
        list_ads: PtrMut<u32>,
        ln_zs: PtrMut<f64>,
        scores: PtrMut<f64>,
        paths: PtrMut<u32>,
        slots: u32,
        layers: u32,
        positions: u32,
    );
}
