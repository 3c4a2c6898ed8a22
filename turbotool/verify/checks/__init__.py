"""The checks of `turbotool verify`: small functions of a Context that measure something and compare it with a bound."""
