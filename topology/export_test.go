package topology

// TextWidth is what the picture takes a text of that class to be wide, in pixels.
func TextWidth(class, text string) float64 { return faceOf(class).width(text) }
