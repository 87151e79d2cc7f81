//! What every form of [`Bus`] must do.
