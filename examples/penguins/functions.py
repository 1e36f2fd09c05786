"""What a data scientist writes: plain functions, and one decorator where the outputs have names."""

from digitalhub_runtime_python import handler


@handler(outputs=["clean", "rows_dropped"])
def clean(penguins, min_mass: int):
    """Drop the penguins that were not measured, and the light ones."""
    frame = penguins.as_df()
    kept = frame.dropna()
    kept = kept[kept["body_mass_g"] >= min_mass]
    print(f"kept {len(kept)} of {len(frame)} penguins")
    return kept, len(frame) - len(kept)


@handler(outputs=["by_species", "heaviest"])
def summarise(clean, column: str = "body_mass_g"):
    """The mean of a column for each species, and the species where it is highest."""
    means = clean.as_df().groupby("species")[column].mean().round(1)
    return means.reset_index(), means.idxmax()


def broken(penguins):
    """A function with a mistake in it."""
    return penguins.as_df()["body_mass_kg"].mean()


def remember(context, masses: dict):
    """Called once in each worker, before the first request."""
    context.masses = masses


def guess(context, body_mass_g: float):
    """The species whose mean mass is nearest."""
    return {"species": min(context.masses, key=lambda s: abs(context.masses[s] - body_mass_g))}
